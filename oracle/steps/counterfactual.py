"""What the oracle computes with its knobs turned, and what it has at every step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from oracle.bridge.sites import find_sites
from oracle.errors import UsageError
from oracle.frameworks import import_jax, precise_jax
from oracle.knobs import Knobs, neutral_knobs
from oracle.spec import AttentionNMT, EncoderDecoder, Spec
from oracle.steps import attention_nmt, encoder_decoder
from oracle.steps.leaves import nest_leaves


class Evaluator:
    """The oracle of one case, under any setting of its knobs.

    All settings share one compiled program; what compiles is shared by all cases of a spec and of shapes.

    Args:
        spec: the model.
        weights: leaves by path.
        batch: what `oracle.batch.batch_tensors` says.
        dtype: the precision of every computation, `float64` or `float32`.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
        UsageError: if the spec is no `EncoderDecoder` and no `AttentionNMT`.
    """

    def __init__(
        self,
        spec: Spec,
        weights: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        *,
        dtype: str = "float64",
    ) -> None:
        if not isinstance(spec, EncoderDecoder | AttentionNMT):
            raise UsageError(
                "the spec is of a mirrored model, which has no knobs; give one of a port by name"
            )
        import_jax()
        self.spec = spec
        self.neutral = neutral_knobs(spec, batch)
        self._dtype = dtype
        self._weights = self._cast(dict(weights))
        self._batch = self._cast({name: a for name, a in batch.items() if not name.endswith("_length")})

    def evaluate(self, settings: Iterable[Knobs]) -> Iterator[dict[str, np.ndarray]]:
        """What a record holds, under each setting in turn: the names, and their order, are the record's.

        The settings are computed one by one as they are asked for: many in one program (`jax.vmap`) take
        half as much time again, since a processor's matrix products gain nothing from it.
        """
        step: ModuleType = attention_nmt if isinstance(self.spec, AttentionNMT) else encoder_decoder
        for knobs in settings:
            # JAX's precision is a setting of the thread: it is left before the next result is asked for.
            with precise_jax():
                computed = _compile_step(self.spec)(self._weights, self._batch, self._cast_knobs(knobs))
                computed = import_jax().device_get(computed)
            computed["d_weights"] = nest_leaves(computed["d_weights"])
            yield {
                name: np.asarray(tensor) for name, tensor in step.name_tensors(self.spec, computed).items()
            }

    def trace(self, knobs: Knobs | None = None) -> dict[str, np.ndarray]:
        """What goes in and out of each layer at each step, and the adjoints.

        `step/<site>/<value>` [batch, time, width], in the order of the forward pass, and then
        `gradient/step/<site>/<value>`, in that of the backward pass. Of a cell the values are `input`,
        `state_c` and `state_h` (which enter the step), `c` and `h` (which leave it, before lengths are
        looked at), at the steps of its loop; of an embedding `output`; of a dense layer `input` and
        `output`; of an attention mechanism `memory`, `query` and `alignments`. Steps of the decoder that
        do not run are zeros.

        Args:
            knobs: the setting; neutral by default.
        """
        knobs = self.neutral if knobs is None else knobs
        with precise_jax():
            values, adjoints = import_jax().device_get(
                _compile_trace(self.spec)(self._weights, self._batch, self._cast_knobs(knobs))
            )
        if isinstance(self.spec, AttentionNMT):
            # The decoder's loop ends with the longest row; what a scan computes beyond is of no step.
            run = int(np.max(knobs.steps_lengths))
            for traced in (values, adjoints):
                for name, array in traced.items():
                    if name.startswith("step/decoder/") and not name.endswith("/memory"):
                        traced[name] = np.where(np.arange(array.shape[1])[:, None] < run, array, 0)
        order = _order_names(self.spec, values)
        backward = [name for name in reversed(order) if name in adjoints]
        return {name: values[name] for name in order} | {f"gradient/{n}": adjoints[n] for n in backward}

    def _cast_knobs(self, knobs: Knobs) -> Knobs:
        """The knobs in the dtypes of the neutral ones, with which the program was compiled."""

        def cast(value: Any, neutral: np.ndarray) -> np.ndarray:
            array = np.asarray(value, self._dtype if neutral.dtype.kind == "f" else np.int32)
            if array.shape != neutral.shape:
                raise UsageError(
                    f"a knob is {list(array.shape)}, where the neutral one is {list(neutral.shape)}; "
                    "turn the numbers of `neutral_knobs` and leave their shapes"
                )
            return array

        return import_jax().tree.map(cast, knobs, self.neutral)

    def _cast(self, tree: Any) -> Any:
        """The floats of a tree of arrays in the evaluator's precision."""
        jax = import_jax()

        def cast(array: Any) -> np.ndarray:
            array = np.asarray(array)
            return array.astype(self._dtype if array.dtype.kind == "f" else np.int32)

        return jax.tree.map(cast, tree)


_VALUES = ("memory", "input", "state_c", "state_h", "c", "h", "query", "alignments", "output")
"""The values of a layer, in the order of its computation."""


def _order_names(spec: EncoderDecoder | AttentionNMT, names: Iterable[str]) -> list[str]:
    """Names of traced values in the order of the forward pass: the sites', and within one its values'."""
    sites = [site.path for site in find_sites(spec, "keras")]

    def place(name: str) -> tuple[int, int]:
        site, _, value = name.removeprefix("step/").rpartition("/")
        return sites.index(site), _VALUES.index(value)

    return sorted(names, key=place)


def _find_program(spec: EncoderDecoder | AttentionNMT) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions of weights, batch and knobs that give all of a record, and loss and traced values."""
    if isinstance(spec, EncoderDecoder):
        from jax_models.counterfactual import encoder_decoder as sequences

        return sequences.differentiate, sequences.watch
    from jax_models.counterfactual import translator

    form = translator.Form(spec.cell, spec.layers, spec.attention.mechanism)
    return functools.partial(translator.differentiate, form), functools.partial(translator.watch, form)


@functools.cache
def _compile_step(spec: EncoderDecoder | AttentionNMT) -> Callable[..., dict[str, Any]]:
    """One program for each spec, which JAX compiles for each shape and dtype it meets."""
    import jax

    return jax.jit(_find_program(spec)[0])


@functools.cache
def _compile_trace(spec: EncoderDecoder | AttentionNMT) -> Callable[..., tuple[Any, Any]]:
    """The traced values, and the adjoints of those that have one."""
    import jax
    import jax.numpy as jnp

    from jax_models.counterfactual.taps import PERTURBED

    watch = _find_program(spec)[1]

    def trace(weights: Any, batch: Any, knobs: Any) -> tuple[Any, Any]:
        def run(perturbations: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
            return watch(weights, batch, knobs, perturbations)

        shapes = jax.eval_shape(run, {})[1]
        zeros = {
            name: jnp.zeros(shape.shape, shape.dtype)
            for name, shape in shapes.items()
            if name.rpartition("/")[2] in PERTURBED
        }
        adjoints, values = jax.grad(run, has_aux=True)(zeros)
        return values, adjoints

    return jax.jit(trace)
