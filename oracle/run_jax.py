"""The oracle's side: a case in, a record out. What it computes of each kind of model is in `oracle.steps`."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal

import msgspec
import numpy as np

from oracle.buckets import crop_tensors, pad_batch
from oracle.case import Case, cast_case, digest_case, jitter_arrays
from oracle.decoding import DecodeOptions, Decoding, make_decoding
from oracle.errors import UsageError
from oracle.frameworks import import_jax, installed_version, precise_jax
from oracle.hearing import gather_point, split_point
from oracle.judgement import Hearing, choose_directions, hear
from oracle.mesh import DataMesh, describe_mesh, limit_kept, run_step
from oracle.record import Origin, Record
from oracle.spec import AttentionNMT, Spec
from oracle.steps import attention_nmt, encoder_decoder
from oracle.steps.counterfactual import Evaluator
from oracle.steps.leaves import nest_leaves
from oracle.steps.paths import DEFAULT_PATH, Path
from oracle.text import BOS, EOS

MODES = ("jit", "eager")
"""How JAX can run the oracle: compiled, or op by op."""


def run_oracle(
    case: Case,
    *,
    model: str,
    mode: str | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    jitter: int = 0,
    sums_in_sequence: bool = False,
    path: Path = DEFAULT_PATH,
    mesh: DataMesh | None = None,
) -> Record:
    """Compute the outputs, the loss and every gradient of the spec's model with Flax.

    Args:
        case: the spec, the weights and the batch.
        model: the port that is to be checked, `explicit_state/full`, for the record. What is computed
            depends on the spec alone.
        mode: one of `MODES`; by default `jit`.
        dtype: the precision of every computation.
        jitter: 0 for the case itself; every other number moves each of the case's numbers to a neighbouring
            one of the dtype, for what roundings alone do to the results.
        sums_in_sequence: whether sums over rows and steps are taken one after another, on one device and
            compiled, for what another order of summation does to the results. The path is chosen for that.
        path: which of the two ways of computing the same numbers.
        mesh: over which devices the batch is spread; by default none.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
        UsageError: if there is no such mode, or no such path, or the batch cannot be spread so.
        CaseError: if another process of the mesh was given another case.
    """
    if mode is None or sums_in_sequence:
        mode = "jit"
    if mode not in MODES:
        raise UsageError(f"the oracle cannot run in mode {mode!r}; it can in {', '.join(MODES)}")
    if mesh is not None and mode == "eager":
        raise UsageError(f"the oracle runs over a mesh compiled, not eagerly; leave out {mesh}")
    import_jax()
    with precise_jax():
        weights, batch = cast_case(case, dtype)
        if jitter:
            weights, batch = jitter_arrays(weights, batch, seed=[case.seed, 3, jitter], dtype=dtype)
        if mode == "jit":
            options = {"path": path, "mesh": mesh, "sums_in_sequence": sums_in_sequence}
            tensors = compute_tensors(case.spec, weights, batch, **options)
        else:
            step = find_step(case.spec)
            computed = run_step(step.differentiate(case.spec, path=path), nest_leaves(weights), batch)
            tensors = step.name_tensors(case.spec, computed)
        if sums_in_sequence:
            flags = {"sums": "in sequence"}
        else:
            flags = describe_path(case.spec, batch, path=path, dtype=dtype, mesh=mesh)
    return Record(case.spec, _describe_case(case, model=model, mode=mode, dtype=dtype, flags=flags), tensors)


def compute_tensors(
    spec: Spec,
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    *,
    path: Path = DEFAULT_PATH,
    mesh: DataMesh | None = None,
    sums_in_sequence: bool = False,
) -> dict[str, np.ndarray | None]:
    """Everything that a record holds of weights and a batch, by the names of a record, compiled.

    The fast path has texts padded to few lengths (`oracle.buckets`); the plain one takes them as they are.

    Args:
        spec: the model.
        weights: the leaves by path.
        batch: its arrays.
        path: by which path.
        mesh: over which devices the batch is spread; by default none.
        sums_in_sequence: as of `compile_step`; then the path is chosen for that, and one device computes.

    Raises:
        UsageError: if there is no such path, or the batch cannot be spread so.
        CaseError: if another process of the mesh was given other weights or another batch.
    """
    if sums_in_sequence:
        path, mesh = _choose_sequential_path(spec, weights, batch, path), None
    compute = compile_step(spec, path, mesh, sums_in_sequence=sums_in_sequence)
    padded = pad_batch(spec, batch) if path == "fast" else batch
    computed = run_step(compute, nest_leaves(weights), padded, mesh=mesh)
    return crop_tensors(spec, find_step(spec).name_tensors(spec, computed), batch)


def trace_oracle(
    case: Case,
    *,
    model: str,
    dtype: Literal["float64", "float32"] = "float64",
    path: Path = DEFAULT_PATH,
) -> Record:
    """Compute what `run_oracle` does, and what each layer reads and gives at each step.

    The record has `step/<site>/<part>` and `gradient/step/<site>/<part>` too, by the names of
    `oracle.run_tf.trace_port`.

    Args:
        case: the spec, the weights and the batch.
        model: the port that is to be checked, for the record.
        dtype: the precision of every computation.
        path: by which path what `run_oracle` computes is computed. The steps have formulas of their own.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
        UsageError: if the spec is of a mirrored model.
    """
    ordinary = run_oracle(case, model=model, dtype=dtype, path=path)
    traced = Evaluator(case.spec, case.weights, case.batch, dtype=dtype).trace()
    tensors: dict[str, np.ndarray | None] = {}
    for group in (traced, ordinary.tensors):
        tensors |= {name: tensor for name, tensor in group.items() if not name.startswith("gradient/")}
    tensors |= {name: tensor for group in (ordinary.tensors, traced) for name, tensor in group.items()}
    return Record(case.spec, ordinary.origin, tensors)


def _describe_case(case: Case, *, model: str, mode: str, dtype: str, flags: Mapping[str, str]) -> Origin:
    """Where the oracle's record of a case comes from."""
    return Origin(
        side="oracle",
        model=model,
        mode=mode,
        dtype=dtype,
        framework="jax",
        versions=_versions(),
        python=platform.python_version(),
        device=import_jax().devices()[0].device_kind,
        case=digest_case(case),
        seed=case.seed,
        weights=case.weights_from,
        data=case.data_from,
        flags={"matmul_precision": "highest", **flags},
    )


def describe_oracle(port: Origin, *, mode: str, dtype: str, flags: Mapping[str, str] | None = None) -> Origin:
    """Where the oracle's record is from that was computed here on what a port's record is of.

    Args:
        port: where the port's record came from.
        mode: how JAX ran.
        dtype: in which precision.
        flags: further settings, by name.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
    """
    return msgspec.structs.replace(
        port,
        side="oracle",
        mode=mode,
        dtype=dtype,
        framework="jax",
        versions=_versions(),
        python=platform.python_version(),
        device=import_jax().devices()[0].device_kind,
        flags={"matmul_precision": "highest", **(flags or {})},
    )


def describe_path(
    spec: Spec, batch: Mapping[str, Any], *, path: Path, dtype: str, mesh: DataMesh | None = None
) -> dict[str, str]:
    """Which path was taken on a batch, whether it computed segments again, and the mesh: a record's flags."""
    flags = {"path": path, **describe_mesh(mesh)}
    if path == "plain":
        return flags
    sizes = {"itemsize": np.dtype(dtype).itemsize, "limit_bytes": limit_kept(mesh)}
    padded = pad_batch(spec, batch)
    return flags | {"rematerialised": find_step(spec).choose_segments(spec, padded, **sizes).describe()}


def _choose_sequential_path(
    spec: Spec, weights: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray], path: Path
) -> Path:
    """The path to sum in sequence by: the plain one, whose loops add each step's share of a gradient in turn.

    It keeps several times what the fast one does, so that where memory could be short it is `path`.
    """
    if path == "plain":
        return path
    itemsize = next(iter(weights.values())).itemsize
    fast = find_step(spec).choose_segments(spec, batch, itemsize=itemsize)
    return "plain" if 4 * fast.kept_bytes <= fast.limit_bytes else path


def _versions() -> dict[str, str]:
    return {name: installed_version(name) or "?" for name in ("jax", "jaxlib", "flax", "numpy")}


def decode_oracle(case: Case, *, options: DecodeOptions) -> Decoding:
    """Decode the sources of a case with the Flax translator, in float64.

    Args:
        case: the spec, an `AttentionNMT`, the weights and the batch, whose targets play no part.
        options: how to decode.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
        UsageError: if the spec is no translator's.
    """
    spec = case.spec
    if not isinstance(spec, AttentionNMT):
        raise UsageError("the spec is no translator's; decode one of `attention_nmt`")
    import_jax()
    with precise_jax():
        weights, batch = cast_case(case, "float64")
        greedy, beams = _compile_decoding(spec, options)(nest_leaves(weights), batch)
        return make_decoding(greedy, beams, options)


def hear_oracle(case: Case, *, port: Record, oracle: Record, seed: int = 0) -> Hearing:
    """Hear the oracle: its record's gradients against its own loss, by differences and by forward mode.

    Args:
        case: what both records are of.
        port: the port's record, in float64, for the directions.
        oracle: the oracle's.
        seed: of the directions.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
    """
    import_jax()
    with precise_jax():
        weights, batch = cast_case(case, "float64")
        compute, push = _compile_loss(case.spec)

        def split(point: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
            leaves, moved = split_point(point, weights)
            return nest_leaves(leaves), moved

        def loss(point: Mapping[str, Any]) -> float:
            leaves, moved = split(point)
            return float(compute(leaves, moved, batch))

        point, gradients, truths = gather_point(case, port, oracle)
        leaves, floats = split(point)

        def push_forward(direction: Mapping[str, Any]) -> float:
            still = {name: np.zeros_like(array) for name, array in point.items()}
            return float(push(leaves, floats, batch, *split({**still, **direction})))

        directions = choose_directions(gradients, truths, seed=seed)
        return hear(loss, point, truths, directions, forward_mode=push_forward)


@functools.cache
def _compile_loss(spec: Spec) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The loss alone, of leaves, the floats of the batch that are moved, and the batch; and its slope."""
    import jax

    # The witness hears the reference, whichever path the record came by.
    step = find_step(spec).differentiate(spec, path="plain")

    def loss(leaves: Any, moved: Any, batch: Any) -> Any:
        # What else the step gives is dropped by the compiler.
        return step(leaves, {**batch, **moved})["loss"]

    def push(leaves: Any, moved: Any, batch: Any, d_leaves: Any, d_moved: Any) -> Any:
        def of(leaves: Any, moved: Any) -> Any:
            return loss(leaves, moved, batch)

        return jax.jvp(of, (leaves, moved), (d_leaves, d_moved))[1]

    return jax.jit(loss), jax.jit(push)


@functools.cache
def _compile_decoding(spec: AttentionNMT, options: DecodeOptions) -> Callable[..., tuple[Any, Any]]:
    import jax

    module = attention_nmt.build_module(spec)
    tokens = {"start_token": BOS, "end_token": EOS, "maximum_iterations": options.maximum_iterations}
    search = {"beam_width": options.beam_width, "length_penalty_weight": options.length_penalty_weight}

    def decode(weights, batch):
        source = batch["source"], batch["source_length"]
        variables = {"params": weights}
        ids, _ = module.apply(variables, *source, **tokens, method="greedy_decode")
        all_ids, _ = module.apply(variables, *source, **tokens, **search, method="beam_search_decode")
        return ids, all_ids

    return jax.jit(decode)


@functools.cache
def compile_step(
    spec: Spec,
    path: Path = DEFAULT_PATH,
    mesh: DataMesh | None = None,
    *,
    sums_in_sequence: bool = False,
) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    """One program for each of these, which JAX compiles for each shape and dtype it meets.

    Args:
        spec: the model.
        path: by which path.
        mesh: over which devices.
        sums_in_sequence: whether sums over rows are taken row after row (`oracle.steps.sequential_sums`).
    """
    import jax

    sizes = {} if mesh is None else {"limit_bytes": limit_kept(mesh), "shards": mesh.data}
    step = find_step(spec).differentiate(spec, path=path, **sizes)
    if sums_in_sequence:
        from oracle.steps.sequential_sums import sum_in_sequence

        step = sum_in_sequence(step)
    return jax.jit(step, donate_argnums=donated_arguments(jax.default_backend()))


def donated_arguments(platform: str) -> tuple[int, ...]:
    """Which arguments of a step give up their buffers: the weights, to the gradients of their shapes.

    On a CPU none does: JAX may have borrowed the memory from NumPy there, and it is not its to give.

    Args:
        platform: what JAX computes on, as `jax.default_backend()` has it.
    """
    return () if platform == "cpu" else (0,)


def find_step(spec: Spec) -> ModuleType:
    """The module of `oracle.steps` for a kind of spec."""
    return attention_nmt if isinstance(spec, AttentionNMT) else encoder_decoder
