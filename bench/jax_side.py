"""JAX's contestants, and the oracle's truth. Runs in a process of its own, in float32 but for the truth."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.cases import BEAM_STEPS, BEAMS
from bench.prepared import CLIP_NORM, LEARNING_RATE, AbsentError, Clock, Prepared
from oracle.bridge.layouts import flax_lstm
from oracle.bridge.mapping import read_gradients, read_weights, write_weights
from oracle.bridge.site import Site
from oracle.bridge.sites import find_sites
from oracle.case import Case, cast_case, jitter_case
from oracle.frameworks import import_jax, precise_jax
from oracle.spec import AttentionNMT, EncoderDecoder, Spec
from oracle.steps.leaves import flatten_leaves, nest_leaves
from oracle.steps.sequential_sums import sum_in_sequence
from oracle.text import BOS, EOS
from oracle.tolerance import FLOAT32_RUNS

Arrays = Mapping[str, np.ndarray]
Tensors = dict[str, np.ndarray | None]


def start(threads: int) -> None:
    """Import JAX, and let it start its threads. How many there are it has from the process' CPUs."""
    del threads
    jax = import_jax()
    jax.config.update("jax_default_matmul_precision", "highest")
    # What a compiler costs is measured, so that nothing it once made is taken.
    jax.config.update("jax_enable_compilation_cache", False)
    product = jax.jit(lambda a: a @ a)
    product(jax.numpy.ones([256, 256])).block_until_ready()


def compute_truth(case: Case) -> list[Tensors]:
    """The loss and the gradients of the plain path: in float64, then the yardstick's runs in float32.

    Of the yardstick there are all that a comparison may ask for: those with sums in sequence too.
    """
    jax = import_jax()
    with precise_jax():
        step = _reduce(find_step(case.spec, "plain"))
        compute, in_sequence = jax.jit(step), jax.jit(sum_in_sequence(step))
        jittered = [jitter_case(case, number) for number in range(FLOAT32_RUNS)]
        runs = [(compute, case, "float64")]
        runs += [(each, moved, "float32") for each in (compute, in_sequence) for moved in jittered]
        computed = []
        for each, moved, dtype in runs:
            weights, batch = cast_case(moved, dtype)
            computed.append(_name(*jax.device_get(each(nest_leaves(weights), batch))))
    return computed


def decode_truth(case: Case) -> Tensors:
    """The tokens of the plain path's beam search, in float64."""
    jax = import_jax()
    with precise_jax():
        weights, batch = cast_case(case, "float64")
        ids = jax.jit(_search(case.spec))(nest_leaves(weights), batch)
        return {"ids": np.asarray(ids)}


def prepare(name: str, job: str, case: Case) -> Prepared:
    """Make a contestant ready.

    Raises:
        AbsentError: if it cannot take part here.
    """
    jax = import_jax()
    batch = jax.device_put(dict(case.batch))
    if job == "beam":
        weights = jax.device_put(nest_leaves(case.weights))
        step, times = _compile(_search(case.spec), (weights, batch))
        return Prepared(step, lambda: {"ids": np.asarray(step())}, **times)
    makers = {"flax": _make_flax, "cudnn": _make_cudnn}
    function, params, read = makers[name](case) if name in makers else _make_own(name, case)
    if job == "gradient":
        placed = jax.device_put(params)
        step, times = _compile(function, (placed, batch))
        return Prepared(step, lambda: _result(read, jax.device_get(step())), **times)
    return _prepare_training(case, function, params, batch, read)


def find_step(spec: Spec, path: str) -> Callable[..., Any]:
    """The oracle's step of a spec, by the path asked for: `plain`, `fast`, `fast-remat`.

    Raises:
        AbsentError: if there is no such path of it.
    """
    from oracle import run_jax

    differentiate = run_jax.find_step(spec).differentiate
    known = inspect.signature(differentiate).parameters
    if path == "plain":
        return differentiate(spec, **({"path": "plain"} if "path" in known else {}))
    if "path" not in known:
        raise AbsentError("the oracle has no fast path of this model yet")
    if path == "fast":
        return differentiate(spec, path="fast")
    if "limit_bytes" not in known:
        raise AbsentError("the oracle's fast path cannot be told to rematerialise")
    # With nothing to keep, whatever the machine's memory, every loop is cut into segments.
    return differentiate(spec, path="fast", limit_bytes=0)


Carry = Callable[[Any], dict[str, Any]]
"""From a contestant's own parameters, or their gradients, to the oracle's leaves by path."""


def _make_own(name: str, case: Case) -> tuple[Callable[..., Any], Any, tuple[Carry, Carry]]:
    return _reduce(find_step(case.spec, name)), nest_leaves(case.weights), (flatten_leaves, flatten_leaves)


def _reduce(step: Callable[..., Any]) -> Callable[..., Any]:
    """The loss and the gradients of the weights, and nothing else that a step gives."""

    def compute(weights: Any, batch: Any) -> tuple[Any, Any]:
        computed = step(weights, batch)
        return computed["loss"], computed["d_weights"]

    return compute


def _name(loss: Any, gradients: Any) -> Tensors:
    named = {f"gradient/{leaf}": np.asarray(array) for leaf, array in flatten_leaves(gradients).items()}
    return {"loss": np.asarray(loss), **named}


def _result(read: tuple[Carry, Carry], computed: tuple[Any, Any]) -> Tensors:
    loss, gradients = computed
    leaves = read[1](gradients)
    return {"loss": np.asarray(loss), **{f"gradient/{key}": np.asarray(each) for key, each in leaves.items()}}


def _compile(
    function: Callable[..., Any], arguments: tuple[Any, ...], **options: Any
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Trace, compile and call a function. Gives a step, and of `Prepared` what the start cost and made."""
    jax = import_jax()
    clock = Clock()
    lowered = jax.jit(function, **options).lower(*arguments)
    trace = clock.lap()
    compiled = lowered.compile()
    compiling = clock.lap()

    def step() -> Any:
        return jax.block_until_ready(compiled(*arguments))

    step()
    clock.lap()
    times = {"trace": trace, "compile": compiling, "first": clock.total()}
    return step, {**times, "program": compiled.as_text}


def _prepare_training(
    case: Case, function: Callable[..., Any], params: Any, batch: Any, read: tuple[Carry, Carry]
) -> Prepared:
    """The gradient, and a step of Keras' Adam. Parameters and slots are given up to the step, and held."""
    import optax

    from jax_models.optimizers import keras

    jax = import_jax()
    clips = isinstance(case.spec, AttentionNMT)
    optimizer: Any = keras.adam(LEARNING_RATE)
    if clips:
        optimizer = optax.chain(optax.clip_by_global_norm(CLIP_NORM), optimizer)

    def train(params: Any, slots: Any, batch: Any) -> tuple[Any, Any, Any]:
        loss, gradients = function(params, batch)
        updates, slots = optimizer.update(gradients, slots, params)
        return optax.apply_updates(params, updates), slots, loss

    # Copies, for they are given up.
    held: Any = jax.tree.map(jax.numpy.array, params)
    slots = optimizer.init(held)
    clock = Clock()
    lowered = jax.jit(train, donate_argnums=(0, 1)).lower(held, slots, batch)
    trace = clock.lap()
    compiled = lowered.compile()
    compiling = clock.lap()

    def step() -> None:
        nonlocal held, slots
        held, slots, _ = jax.block_until_ready(compiled(held, slots, batch))

    step()
    clock.lap()
    moved = {leaf: np.array(array) for leaf, array in read[0](jax.device_get(held)).items()}
    compute = jax.jit(function)

    def result() -> Tensors:
        return _result(read, jax.device_get(compute(jax.device_put(params), batch)))

    times = {"trace": trace, "compile": compiling, "first": clock.total()}
    return Prepared(step, result, **times, moved=moved, clip=CLIP_NORM if clips else None)


def _make_flax(case: Case) -> tuple[Callable[..., Any], Any, tuple[Carry, Carry]]:
    """Flax's own loop over Flax's own cell, as its documentation has it."""
    spec = case.spec
    assert isinstance(spec, EncoderDecoder)
    import flax.linen as nn

    jax = import_jax()

    class FlaxLayers(nn.Module):
        """An encoder-decoder of Flax's layers."""

        @nn.compact
        def __call__(self, source: Any, target: Any) -> Any:
            encoder = nn.RNN(nn.OptimizedLSTMCell(spec.encoder.units, name="encoder"), return_carry=True)
            state, _ = encoder(source)
            decoder = nn.RNN(nn.OptimizedLSTMCell(spec.decoder.units, name="decoder"))
            decoded = decoder(target, initial_carry=state)
            return nn.Dense(spec.target_features, name="projection")(decoded) if spec.projection else decoded

    module = FlaxLayers()
    sites = _flax_sites(spec)
    params = nest_leaves(write_weights(sites, case.weights))

    def compute(params: Any, batch: Any) -> tuple[Any, Any]:
        def loss_of(params: Any) -> Any:
            outputs = module.apply({"params": params}, batch["source"], batch["target"][:, :-1])
            return jax.numpy.mean(jax.numpy.square(outputs - batch["target"][:, 1:]))

        return jax.value_and_grad(loss_of)(params)

    return compute, params, _carries(sites)


def _flax_sites(spec: EncoderDecoder) -> tuple[Site, ...]:
    """Where `FlaxLayers` has the oracle's leaves."""
    sites = []
    for site in find_sites(spec, "keras"):
        scope, layout = site.path.partition("/")[0], site.layout
        if scope in ("encoder", "decoder"):
            cell = spec.encoder if scope == "encoder" else spec.decoder
            features = spec.source_features if scope == "encoder" else spec.target_features
            layout = flax_lstm(features, cell.units, forget_bias=cell.forget_bias)
        sites.append(Site(site.path, layout, {name: f"{scope}/{name}" for name in layout.variables}))
    return tuple(sites)


def _carries(sites: tuple[Site, ...]) -> tuple[Carry, Carry]:
    """What carries parameters, and what carries their gradients, to the leaves."""

    def numpy(tree: Any) -> dict[str, np.ndarray]:
        return {name: np.asarray(array) for name, array in flatten_leaves(tree).items()}

    def of_weights(params: Any) -> dict[str, Any]:
        return read_weights(sites, numpy(params), where="the contestant")

    def of_gradients(gradients: Any) -> dict[str, Any]:
        return read_gradients(sites, numpy(gradients))

    return of_weights, of_gradients


def _make_cudnn(case: Case) -> tuple[Callable[..., Any], Any, tuple[Carry, Carry]]:
    """cuDNN's LSTM as JAX has it, on a GPU alone."""
    from bench.cudnn import make_cudnn

    jax = import_jax()
    if jax.default_backend() != "gpu":
        raise AbsentError("cuDNN needs a GPU, and JAX found none")
    compute, params, carry = make_cudnn(case)
    return compute, params, (carry, carry)


def _search(spec: Any) -> Callable[..., Any]:
    from oracle.steps.attention_nmt import build_module

    module = build_module(spec)

    def search(weights: Any, batch: Any) -> Any:
        ids, _ = module.apply(
            {"params": weights},
            batch["source"],
            batch["source_length"],
            start_token=BOS,
            end_token=EOS,
            maximum_iterations=BEAM_STEPS,
            beam_width=BEAMS,
            method="beam_search_decode",
        )
        return ids

    return search
