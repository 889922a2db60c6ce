"""The matrix products that a gradient step cannot do without, counted from its spec: the floor.

Counted is what the mathematics of the loss and of the gradient of every weight needs, each product once, in
the largest pieces that the recurrence allows: what does not depend on a step's state is one product over all
steps. Sums, nonlinearities, softmax and memory traffic beyond the products' own are not counted, nor are the
gradients of the batch. A step whose state is zeros multiplies nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from oracle.spec import AttentionNMT, EncoderDecoder


@dataclass(frozen=True)
class Gemm:
    """`count` products [m, k] @ [k, n], each of them for `batch` pairs of matrices at once.

    Args:
        name: of what, for people.
        m, k, n: the sizes.
        count: how often, one after the other.
        batch: how many pairs at once.
    """

    name: str
    m: int
    k: int
    n: int
    count: int = 1
    batch: int = 1

    @property
    def flops(self) -> int:
        """Floating-point operations, a multiplication and an addition each counted."""
        return 2 * self.m * self.k * self.n * self.count * self.batch


def count_gemms(spec: EncoderDecoder | AttentionNMT, *, batch: int, time: int) -> tuple[Gemm, ...]:
    """The products of a gradient step.

    Args:
        spec: the model. Its source and its target both have `time` steps.
        batch: rows.
        time: steps.
    """
    gemms = (
        _count_plain(spec, batch, time) if isinstance(spec, EncoderDecoder) else _count_nmt(spec, batch, time)
    )
    return tuple(gemm for gemm in gemms if gemm.count > 0 and gemm.m > 0 and gemm.k > 0)


def count_flops(gemms: tuple[Gemm, ...]) -> int:
    """All their operations."""
    return sum(gemm.flops for gemm in gemms)


def _count_plain(spec: EncoderDecoder, batch: int, time: int) -> list[Gemm]:
    units = spec.encoder.units
    zeros = spec.initial_state == "implicit"
    gemms = _cell("encoder", spec.source_features, units, 4, batch, time, from_zeros=zeros, into_inputs=False)
    gemms += _cell(
        "decoder", spec.target_features, units, 4, batch, time, from_zeros=False, into_inputs=False
    )
    if spec.projection:
        gemms += _dense("projection", batch * time, units, spec.target_features)
    return gemms


def _count_nmt(spec: AttentionNMT, batch: int, time: int) -> list[Gemm]:
    gates = {"lstm": 4, "gru": 3}[spec.cell]
    memory = units = 2 * spec.units
    attended = memory if spec.attention.layer_units is None else spec.attention.layer_units
    gemms = []
    for layer in range(spec.layers):
        features = memory if layer else spec.embedding
        for direction in ("forward", "backward"):
            name = f"encoder {layer} {direction}"
            gemms += _cell(name, features, spec.units, gates, batch, time, from_zeros=True, into_inputs=True)
    # The embedded target does not wait for the step before; the attention that is fed back does.
    gemms += _dense("decoder 0 target", batch * time, spec.embedding, gates * units)
    gemms += _stepwise("decoder 0 attention", batch, attended, gates * units, time)
    gemms += _stepwise("decoder 0 state", batch, units, gates * units, time)
    for layer in range(1, spec.layers):
        gemms += _stepwise(f"decoder {layer} inputs", batch, units, gates * units, time)
        gemms += _stepwise(f"decoder {layer} state", batch, units, gates * units, time)
    gemms += _count_attention(spec, batch, time)
    if spec.attention.layer_units is not None:
        gemms += _stepwise("attention layer", batch, units + memory, attended, time)
    gemms += _dense("output layer", batch * time, attended, spec.target_vocab)
    return gemms


def _count_attention(spec: AttentionNMT, batch: int, time: int) -> list[Gemm]:
    memory, depth = 2 * spec.units, spec.attention.units
    gemms = _dense("memory layer", batch * time, memory, depth)
    if spec.attention.mechanism.startswith("luong"):
        # A query is a row for each row of the batch, and so is what it attends to.
        gemms += _rowwise("score", batch, depth, time, steps=time)
    else:
        # Bahdanau's score itself is a sum of tanh by elements, no product of matrices.
        gemms += _stepwise("query layer", batch, 2 * spec.units, depth, time)
    return gemms + _rowwise("context", batch, time, memory, steps=time)


def _dense(name: str, rows: int, features: int, units: int, *, into_inputs: bool = True) -> list[Gemm]:
    """A product over all steps at once, and the gradients of its kernel and of its inputs."""
    gemms = [Gemm(name, rows, features, units), Gemm(f"{name}, kernel's gradient", features, rows, units)]
    return [*gemms, Gemm(f"{name}, inputs' gradient", rows, units, features)] if into_inputs else gemms


def _stepwise(name: str, batch: int, features: int, units: int, steps: int) -> list[Gemm]:
    """A product in every step, forward and backward; the kernel's gradient is one over all steps."""
    return [
        Gemm(name, batch, features, units, steps),
        Gemm(f"{name}, inputs' gradient", batch, units, features, steps),
        Gemm(f"{name}, kernel's gradient", features, batch * steps, units),
    ]


def _rowwise(name: str, batch: int, k: int, n: int, *, steps: int) -> list[Gemm]:
    """A row by a matrix of its own in every step; the matrix' gradient is one product over all steps."""
    return [
        Gemm(name, 1, k, n, steps, batch),
        Gemm(f"{name}, row's gradient", 1, n, k, steps, batch),
        Gemm(f"{name}, matrix' gradient", k, steps, n, 1, batch),
    ]


def _cell(
    name: str,
    features: int,
    units: int,
    gates: int,
    batch: int,
    time: int,
    *,
    from_zeros: bool,
    into_inputs: bool,
) -> list[Gemm]:
    steps = time - 1 if from_zeros else time
    inputs = _dense(f"{name} inputs", batch * time, features, gates * units, into_inputs=into_inputs)
    return inputs + _stepwise(f"{name} state", batch, units, gates * units, steps)
