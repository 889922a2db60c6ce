"""One call of a part made again by the oracle, on what the port gave the part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_models.cell_base import LSTMState
from oracle.bridge.mirror.counterfactual.calls import (
    APPLY,
    OUTPUT,
    SETUP_MEMORY,
    Call,
    is_float,
    map_arguments,
    map_arrays,
)
from oracle.bridge.mirror.counterfactual.reference import label_call
from oracle.bridge.mirror.mirrored import Mirror
from oracle.bridge.mirror.refusals import MirrorError
from oracle.frameworks import precise_jax

_WRAPPER_STATE = {"cell_state", "attention", "alignments"}

Arrays = dict[str, np.ndarray]


def find_mirrors(mirror: Mirror) -> dict[str, Mirror]:
    """The mirror of every part, by attribute path."""
    found: dict[str, Mirror] = {}
    for child in mirror.children.values():
        found[child._path.rstrip("/")] = child
        found |= find_mirrors(child)
    return found


class Replay:
    """The oracle's parts, to be run on the arguments of the port's calls.

    Args:
        mirror: the mirror of the port's models, at the weights of the record.
        names: for each attribute path the one by which its object is known.
        calls: the port's calls.
    """

    def __init__(self, mirror: Mirror, names: Mapping[str, str], calls: Sequence[Call]) -> None:
        self._mirrors, self._names, self._calls = find_mirrors(mirror), names, calls

    def run(self, call: Call, cotangents: Mapping[str, np.ndarray] | None) -> tuple[Arrays, Arrays]:
        """What the oracle's part gives for the arguments of a call, and the adjoints of these.

        Args:
            call: one of the port's.
            cotangents: the adjoints of its outputs, by name; None to leave out those of the arguments.

        Raises:
            Exception: if the part cannot be called so.
        """
        part = self._mirrors[call.part]
        assert call.given is not None
        with precise_jax():
            args = tuple(self._convert(value, call) for value in call.given[0])
            kwargs = {name: self._convert(value, call) for name, value in call.given[1].items()}
            kwargs.pop("training", None)
            if "mask" in call.arguments and kwargs.get("mask") is None and part._piece.takes_mask:
                kwargs["mask"] = call.arguments["mask"]
            labels = label_call(part, call.method, args, kwargs)
            floats: dict[str, Any] = {}

            def note(name: str, array: Any) -> Any:
                if is_float(array):
                    floats[name] = jnp.asarray(array)
                return array

            map_arguments(labels, args, kwargs, note)

            def compute(floats: Mapping[str, Any]) -> dict[str, Any]:
                given, options = map_arguments(labels, args, kwargs, floats.get)
                outputs: dict[str, Any] = {}
                result = getattr(part, call.method)(*given, **options)
                map_arrays(result, OUTPUT, outputs.setdefault)
                return outputs

            if cotangents is None:
                return _to_numpy(compute(floats)), {}
            outputs, pull = jax.vjp(lambda x: {n: a for n, a in compute(x).items() if is_float(a)}, floats)
            given = {
                name: jnp.asarray(cotangents.get(name, np.zeros(array.shape)))
                for name, array in outputs.items()
            }
            return _to_numpy(outputs), _to_numpy(pull(given)[0])

    def _convert(self, value: Any, call: Call) -> Any:
        """An argument as the mirror takes it: tfa's state of a wrapper as ours, with its memory."""
        if isinstance(value, dict) and value.keys() == {"c", "h"}:
            return LSTMState(**value)
        if isinstance(value, dict) and value.keys() >= _WRAPPER_STATE:
            return self._convert_state(value, call)
        if isinstance(value, dict):
            return {name: self._convert(item, call) for name, item in value.items()}
        if isinstance(value, list):
            return [self._convert(item, call) for item in value]
        return value

    def _convert_state(self, state: dict[str, Any], call: Call) -> Any:
        part = self._mirrors[call.part]
        path = call.part if "initial_state" in part._piece.methods else f"{call.part}/cell"
        wrapper = self._mirrors.get(path)
        mechanism = self._names.get(f"{path}/attention_mechanism")
        memories = [c for c in self._calls if c.part == mechanism and c.method == SETUP_MEMORY]
        if wrapper is None or not memories or np.size(state.get("alignment_history", ())):
            raise MirrorError(f"mirror: {call.part}: what its memory holds is not known")
        arguments = dict(memories[-1].arguments)
        memory = arguments.pop("input")
        ready = wrapper.setup_memory(memory, **arguments)
        cell_state = self._convert(state["cell_state"], call)
        ours = wrapper.initial_state(ready, cell_state=cell_state)
        kept = ("attention", "alignments", "attention_state")
        return ours._replace(**{name: jnp.asarray(state[name]) for name in kept})


def can_replay(call: Call) -> bool:
    """Whether a call can be made again at all."""
    return call.method == APPLY and call.given is not None


def _to_numpy(arrays: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(array) for name, array in arrays.items()}
