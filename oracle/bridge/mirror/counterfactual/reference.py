"""A person's reference watched in JAX: the calls it makes of the mirror's parts, and the adjoints at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oracle.bridge.mirror.counterfactual.calls import (
    APPLY,
    OUTPUT,
    SETUP_MEMORY,
    WATCHED,
    Call,
    is_float,
    label_arguments,
    map_arguments,
    map_arrays,
)
from oracle.bridge.mirror.counterfactual.parts import choose_names
from oracle.bridge.mirror.mirrored import Mirror
from oracle.bridge.mirror.run_oracle_side import make_reference
from oracle.bridge.mirror.run_port_side import PortRun
from oracle.frameworks import precise_jax
from oracle.live_port import LivePort, split_outputs
from oracle.steps.leaves import nest_leaves

Watch = Callable[[Mirror, str, tuple[Any, ...], dict[str, Any]], Any]
"""`result = watch(mirror, method, args, kwargs)`: makes the call, or another one in its place."""


class WatchedMirror:
    """A mirror whose calls go through a function. It stands for the mirror in a person's reference.

    Args:
        mirror: the mirror.
        watch: what makes the calls.
    """

    def __init__(self, mirror: Mirror, watch: Watch) -> None:
        self._mirror, self._watch = mirror, watch

    @property
    def children(self) -> Mapping[str, WatchedMirror]:
        """The parts, by name."""
        inner = self._mirror.children
        return MappingProxyType({name: WatchedMirror(part, self._watch) for name, part in inner.items()})

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """As `Mirror.apply`."""
        return self._watch(self._mirror, APPLY, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._mirror, name)
        if isinstance(value, Mirror):
            return WatchedMirror(value, self._watch)
        if name in self._mirror._piece.methods:
            return lambda *args, **kwargs: self._watch(self._mirror, name, args, kwargs)
        return value


def call_plainly(mirror: Mirror, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make a call as it stands."""
    return getattr(mirror, method)(*args, **kwargs)


class References:
    """A port's reference, ready to be run with calls that are watched.

    Args:
        port: the live port.
        run: what its side gave.
        parts: its live objects by attribute path.
    """

    def __init__(self, port: LivePort, run: PortRun, parts: Mapping[str, Any]) -> None:
        self._port, self._run = port, run
        self._names = choose_names(parts)
        self._reference = port.reference or make_reference(port, run.mirror)
        self._others = {name: array for name, array in run.batch.items() if array.dtype.kind != "f"}
        floats = {name: array for name, array in run.batch.items() if array.dtype.kind == "f"}
        self.floats = {name: array.astype(np.float64) for name, array in floats.items()}
        weights = {leaf: array.astype(np.float64) for leaf, array in run.weights.items()}
        self.params = nest_leaves(weights)

    def compute(
        self,
        params: Any,
        floats: Mapping[str, Any],
        watch: Watch,
        *,
        change: Callable[[Any], Any] = lambda whole: whole,
        others: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """The loss and the named outputs.

        Args:
            params: the leaves, a tied one once.
            floats: the floating-point arrays of the batch.
            watch: what makes the calls.
            change: what is done to the expanded weights first.
            others: the other arrays of the batch, by default as they are.

        Raises:
            UsageError: if the reference gives no scalar.
        """
        mirror = self._run.mirror
        batch = {**floats, **(self._others if others is None else others)}
        watched: Any = WatchedMirror(mirror, watch)
        result = self._reference(watched, change(mirror.expand(params)), batch)
        return split_outputs(result, "the reference")

    @property
    def others(self) -> dict[str, np.ndarray]:
        """The arrays of the batch that are no floating-point numbers."""
        return dict(self._others)

    def name_part(self, mirror: Mirror, method: str) -> str:
        """The path by which a mirror's object is known. The memory of a wrapper is its mechanism's."""
        path = mirror._path.rstrip("/")
        if method == SETUP_MEMORY and f"{path}/attention_mechanism" in self._names:
            path = f"{path}/attention_mechanism"
        return self._names.get(path, path)

    def record(self) -> tuple[Call, ...]:
        """The calls of the watched kinds that the reference makes, with all adjoints, in order.

        Raises:
            Exception: what the reference raises.
        """
        with precise_jax():
            described = self._describe()
            nudges = {name: np.zeros(a.shape) for name, a in described.items() if is_float(a)}
            return self._record_with(nudges)

    def _describe(self) -> dict[str, Any]:
        """The arrays at every call, or at least their shapes."""

        def run(params: Any, floats: Any) -> dict[str, Any]:
            watch = _Recorder(self, None)
            self.compute(params, floats, watch)
            return watch.values

        try:
            return jax.eval_shape(run, self.params, self.floats)
        except jax.errors.JAXTypeError:
            # A reference that looks at values cannot be traced.
            return run(self.params, self.floats)

    def _record_with(self, nudges: dict[str, Any]) -> tuple[Call, ...]:
        seen: list[_Recorder] = []

        def loss_of(nudges: Any) -> Any:
            watch = _Recorder(self, nudges)
            seen.append(watch)
            loss, _ = self.compute(self.params, self.floats, watch)
            return loss, watch.values

        differentiate = jax.value_and_grad(loss_of, has_aux=True)
        try:
            (_, values), adjoints = jax.jit(differentiate)(nudges)
        except jax.errors.JAXTypeError:
            (_, values), adjoints = differentiate(nudges)
        values, adjoints = jax.device_get((values, adjoints))
        return tuple(
            Call(
                *key,
                _within(values, f"{number}/in/"),
                _within(values, f"{number}/out/"),
                _within(adjoints, f"{number}/in/"),
                _within(adjoints, f"{number}/out/"),
                training=training,
            )
            for number, (key, training) in enumerate(seen[-1].keys)
        )


class _Recorder:
    """Notes the arrays at each call, and adds nudges to those that are floating-point numbers."""

    def __init__(self, references: References, nudges: Mapping[str, Any] | None) -> None:
        self._references, self._nudges = references, nudges
        self._counts: dict[tuple[str, str], int] = {}
        self.values: dict[str, Any] = {}
        self.keys: list[tuple[tuple[str, str, int], bool | None]] = []

    def __call__(self, mirror: Mirror, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method not in WATCHED:
            return call_plainly(mirror, method, args, kwargs)
        part = self._references.name_part(mirror, method)
        count = self._counts.get((part, method), 0)
        self._counts[part, method] = count + 1
        number = len(self.keys)
        options = {name: value for name, value in kwargs.items() if name != "params"}
        self.keys.append(((part, method, count), options.get("training")))
        labels = label_call(mirror, method, args, options)
        args, options = map_arguments(labels, args, options, self._noting(f"{number}/in/"))
        result = call_plainly(mirror, method, args, {**kwargs, **options})
        if method == SETUP_MEMORY:
            # What a mechanism keeps differs in form; what it is given is compared.
            return result
        return map_arrays(result, OUTPUT, self._noting(f"{number}/out/"))

    def _noting(self, prefix: str) -> Callable[[str, Any], Any]:
        return lambda name, array: self._note(prefix + name, array)

    def _note(self, name: str, array: Any) -> Any:
        if self._nudges is not None and is_float(array):
            array = array + self._nudges[name]
        self.values[name] = jnp.asarray(array)
        return array


def label_call(mirror: Mirror, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The names of the arguments of a mirror's call. See `label_arguments`."""
    piece = mirror._piece
    function = piece.call if method == APPLY else piece.methods[method]
    if function is not None and getattr(function, "__name__", "") == "_call_directly":
        function = None
    return label_arguments(function, args, kwargs, skip=1)


def _within(arrays: Mapping[str, Any], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): np.asarray(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
