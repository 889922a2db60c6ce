"""A repaired model held against the original, before anything is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.batches import check_batch, draw_batch
from oracle.legacy_graph.contexts import LoopSettings
from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.extraction import Extract
from oracle.legacy_graph.flax_verification import FlaxVerification, verify_by_flax
from oracle.legacy_graph.hearing import epsilon, hear_witness
from oracle.legacy_graph.original import Original
from oracle.legacy_graph.selection import Selection
from oracle.legacy_graph.vjp import Backward
from oracle.legacy_graph.witness import Testimony


@dataclass(frozen=True)
class Verification:
    """The figures of a verification.

    Args:
        outputs: of every output, how many elements were compared; all agree bit for bit.
        differences: of every gradient, the largest difference from TF1's own, and the largest element;
            empty where the file keeps no contexts for TF1 to differentiate by.
        unconnected: sources that no output depends on, whose gradient is None.
        dtype: what the witness computed in.
        testimonies: what the witness says.
        rounding: of every gradient, the distance of float32 from float64, relative to its norm; empty
            where the witness computed in float32.
        batch: what it was verified on.
        rewriting: where TensorFlow's graph optimizer rounds an output otherwise than in a session, by how
            much; then the outputs were compared with the optimizer off, on both sides.
        failure: why TF1 gives no gradients of its own, where `differences` is empty.
        zeros: gradients that are 0 everywhere on the batch, so that it says little of them.
        flax: what was compared with Flax, and why the rest was not.
    """

    outputs: Mapping[str, int]
    differences: Mapping[str, tuple[float, float]]
    unconnected: tuple[str, ...]
    dtype: str
    testimonies: tuple[Testimony, ...]
    rounding: Mapping[str, float] = field(default_factory=dict)
    batch: Mapping[str, np.ndarray] = field(default_factory=dict)
    rewriting: Mapping[str, float] = field(default_factory=dict)
    failure: str = "the file keeps no contexts"
    zeros: tuple[str, ...] = ()
    flax: FlaxVerification | None = None

    def describe(self) -> list[str]:
        """The figures, a line each."""
        count = sum(self.outputs.values())
        lines = [
            f"forward: {len(self.outputs)} outputs, {count} elements, equal to the original's bit for bit"
        ]
        if self.rewriting:
            worst = max(self.rewriting.values())
            lines.append(
                "optimizer: compared with TensorFlow's graph optimizer off; on, it changes the rounding of "
                f"outputs by up to {worst:.3g}"
            )
        if self.differences:
            worst = max(difference for difference, _ in self.differences.values())
            lines.append(
                f"gradients: {len(self.differences)} against TF1's own, largest difference {worst:.3g}"
            )
        else:
            lines.append(f"gradients: TF1 has none of its own here, for {self.failure}")
        if self.flax is not None:
            lines += self.flax.describe()
        if not self.testimonies:
            lines.append("witness: not asked, for gradients are stopped within a loop")
        else:
            worst = max(self.testimonies, key=lambda one: one.deviation / max(one.scale, 1e-300))
            lines.append(
                f"witness: {len(self.testimonies)} directional differences in {self.dtype}, largest "
                "deviation "
                f"{worst.deviation:.3g} where the gradient's norm is {worst.scale:.3g} ({worst.name})"
            )
        for one in self.testimonies:
            if not one.agrees:
                lines.append(
                    f"witness: TensorFlow's own gradient along {one.name!r} is {one.gradient:.6g}, and "
                    f"differences give {one.difference:.6g} +- {one.error:.2g}"
                )
        if self.rounding:
            lines.append(
                f"rounding: float32 is within {max(self.rounding.values()):.3g} of float64, relative"
            )
        if self.zeros:
            lines.append(
                f"zero: {', '.join(self.zeros)}, everywhere on these inputs, which say little of them"
            )
        if self.unconnected:
            lines.append(f"no gradient: {', '.join(self.unconnected)} (no differentiable path to an output)")
        return lines


def verify(
    model: Any,
    selection: Selection,
    extract: Extract,
    backward: Backward,
    settings: Mapping[str, LoopSettings],
    *,
    batch: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Verification:
    """Run the original and the repaired model on the same inputs, and compare.

    Raises:
        GraphError: G210 if an output differs in a bit, or a gradient from TF1's own, from Flax's or from
            the witness; G308 if no inputs are found, or every gradient is 0 on them.
    """
    where = extract.where
    names = tuple(variable.name for variable in extract.variables)
    has_contexts = bool(selection.meta_graph.loops) or not (
        backward.control_flow.loops or backward.control_flow.branches
    )
    rewriting, failure = {}, "the file keeps no contexts"
    for optimize in (True, False):
        with Original(selection, names, optimize=optimize) as original, _graph_optimizer(enabled=optimize):
            if batch is None:
                batch = draw_batch(model.input_specs, original.run, seed=seed, where=where)
            else:
                batch = check_batch(batch, model.input_specs, where=where)
            expected = original.run(batch)
            weights = _draw_weights(expected, backward, seed)
            reference = {}
            if has_contexts:
                try:
                    reference = original.differentiate(batch, weights)
                except GraphError as error:
                    failure = str(error).partition(": ")[2]
            outputs, gradients = differentiate_model(model, batch, weights)
        if not optimize or all(is_same(outputs[key], array) for key, array in expected.items()):
            break
        # The optimizer may add in another order in a function than in a session: compare what is written.
        rewriting = {
            key: float(np.max(np.abs(outputs[key] - array), initial=0.0))
            for key, array in expected.items()
            if outputs[key].shape == np.shape(array) and outputs[key].dtype.kind == "f"
        }
    _compare_outputs(outputs, expected, where)
    differences = _compare_gradients(gradients, reference, where)
    for name, gradient in gradients.items():
        if gradient is not None and not np.isfinite(gradient).all():
            raise GraphError(
                "G014",
                f"{where}: the gradient of {name!r} is not finite on the inputs that it was to be "
                "verified on; "
                "give others with --inputs",
            )
    zeros = tuple(name for name, found in gradients.items() if found is not None and not found.any())
    if not any(found is not None and name not in zeros for name, found in gradients.items()):
        raise GraphError(
            "G308",
            f"{where}: every gradient is 0 on the inputs that it was to be verified on, so nothing would be; "
            "give others with --inputs",
        )
    flax = verify_by_flax(extract, settings, batch, weights, gradients, optimize=not rewriting)
    dtype, testimonies, rounding = hear_witness(
        extract, backward, settings, batch, weights, gradients, seed, has_reference=bool(differences)
    )
    unconnected = tuple(name for name, gradient in gradients.items() if gradient is None)
    counts = {key: array.size for key, array in expected.items()}
    return Verification(
        counts, differences, unconnected, dtype, testimonies, rounding, batch, rewriting, failure, zeros, flax
    )


def differentiate_model(
    model: Any, batch: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    """Outputs and the tape's gradients of sum(weight * output), by `input/KEY` and `variable/NAME`."""
    tf = import_tensorflow()
    tensors = {key: tf.constant(array) for key, array in batch.items()}
    sources = {f"input/{key}": tensor for key, tensor in tensors.items() if tensor.dtype.is_floating}
    sources.update(
        {
            # Of a variable of a distribution strategy, its copy here is what a tape can watch.
            f"variable/{name}": tf.distribute.get_strategy().experimental_local_results(variable)[0]
            for name, variable in model.variables_by_name.items()
            if variable.dtype.is_floating
        }
    )
    with tf.GradientTape() as tape:
        tape.watch(list(sources.values()))
        outputs = model(tensors)
        targets = [outputs[key] for key in weights]
    gradients = tape.gradient(
        targets, sources, output_gradients=[tf.constant(weights[key]) for key in weights]
    )
    found = {
        name: None if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for name, gradient in gradients.items()
    }
    return {key: output.numpy() for key, output in outputs.items()}, found


def _draw_weights(outputs: Mapping[str, np.ndarray], backward: Backward, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed + 1)
    return {
        key: np.asarray(rng.standard_normal(outputs[key].shape), outputs[key].dtype)
        for key in backward.upstream
    }


@contextlib.contextmanager
def _graph_optimizer(*, enabled: bool) -> Iterator[None]:
    """Let TensorFlow's graph optimizer rewrite functions, or not."""
    tf = import_tensorflow()
    if enabled:
        yield
        return
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        was_off = before.get("disable_meta_optimizer", False)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": was_off})


def is_same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two arrays are the same bit for bit. Strings are compared as values."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if found.dtype.hasobject:
        return bool(np.array_equal(found, expected))
    return found.tobytes() == expected.tobytes()


def _compare_outputs(
    outputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], where: str
) -> None:
    for key, computed in expected.items():
        found, array = outputs[key], np.asarray(computed)
        if not is_same(found, array):
            far = ""
            if found.shape == array.shape and found.dtype.kind == "f":
                far = f", by up to {np.max(np.abs(found - array)):.3g}"
            raise GraphError(
                "G210",
                f"{where}: the repaired model's output {key!r} ({found.dtype} {list(found.shape)}) is "
                "not the "
                f"original's ({array.dtype} {list(array.shape)}) bit for bit{far}; nothing was written",
            )


def _compare_gradients(
    gradients: Mapping[str, np.ndarray | None], reference: Mapping[str, np.ndarray | None], where: str
) -> dict[str, tuple[float, float]]:
    differences = {}
    for name, expected in reference.items():
        found = gradients[name]
        if (found is None) != (expected is None):
            who = "TF1's own" if found is None else "the repaired model's"
            raise GraphError("G210", f"{where}: only {who} gradient of {name!r} exists; nothing was written")
        if found is None or expected is None:
            continue
        # An infinite or undefined element must be so on both sides.
        defined = np.isfinite(expected)
        if not np.array_equal(found[~defined], expected[~defined], equal_nan=True):
            raise GraphError(
                "G210",
                f"{where}: the gradient of {name!r} is finite where TF1's own is not; nothing was written",
            )
        difference = float(np.max(np.abs(found[defined] - expected[defined]), initial=0.0))
        size = float(np.max(np.abs(expected[defined]), initial=0.0))
        # The same kernels on the same numbers; only the order of a sum may differ.
        if not difference <= 16 * epsilon(expected.dtype) * size:
            raise GraphError(
                "G210",
                f"{where}: the gradient of {name!r} differs from TF1's own by {difference:.3g}, of "
                f"{size:.3g}; "
                "nothing was written",
            )
        differences[name] = (difference, size)
    return differences
