"""What a parity test is: one configuration, run by TensorFlow and by `jax_models`, held together.

A module of this folder registers a subject a symbol:

    @parity("tfa.seq2seq.hardmax", configurations=st.fixed_dictionaries({...}))
    def hardmax(config) -> Pair:
        ...
        return Pair(tf={"output": ..., "gradient/logits": ...}, jax={...})

`test_parity.py` draws a few configurations of each; `python -m tests.parity` draws thousands and
writes `docs/parity.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis.strategies import SearchStrategy

from oracle.frameworks import precise_jax
from oracle.tolerance import FLOAT32_FACTOR, FLOAT32_ROUNDING, FLOAT64_BOUND, largest

Config = Mapping[str, Any]
"""One configuration: plain Python values, among them the `seed` of every random array."""

Arrays = Mapping[str, np.ndarray | None]


@dataclass(frozen=True)
class Pair:
    """The same named tensors from both sides: outputs, states, `loss`, `gradient/...`.

    A gradient that TensorFlow gives as None is given as None, and must be all zeros (or None) on the
    JAX side. `noise` is for the symbols that TensorFlow refuses in float64: the error that float32
    arithmetic makes by itself in each tensor, measured as the largest `jax float32 - jax float64` of
    several jittered runs, as `oracle.tolerance` has it; the `jax` arrays are then the float64 ones.
    """

    tf: Arrays
    jax: Arrays
    noise: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A symbol, how to draw a configuration of it, and how to run one."""

    symbol: str
    configurations: SearchStrategy[dict[str, Any]]
    run: Callable[[Config], Pair]


SUBJECTS: dict[str, Subject] = {}


def parity(
    symbol: str, *, configurations: SearchStrategy[dict[str, Any]]
) -> Callable[[Callable[[Config], Pair]], Callable[[Config], Pair]]:
    """Register the decorated function as the parity test of `symbol`."""

    def register(run: Callable[[Config], Pair]) -> Callable[[Config], Pair]:
        if symbol in SUBJECTS:
            raise ValueError(f"parity: {symbol} is registered twice")
        SUBJECTS[symbol] = Subject(symbol, configurations, run)
        return run

    return register


@dataclass(frozen=True)
class Worst:
    """The worst errors of a pair, or of many, in units of what is allowed: at most 1 if they agree.

    Args:
        float64: of the tensors that TensorFlow computed in float64.
        float32: of those that it computed in float32; None if there are none.
    """

    float64: float | None = None
    float32: float | None = None

    def join(self, other: Worst) -> Worst:
        """The worse of the two, in each precision."""
        return Worst(_worse(self.float64, other.float64), _worse(self.float32, other.float32))

    @property
    def agrees(self) -> bool:
        """Whether nothing is beyond its bound."""
        return max(self.float64 or 0.0, self.float32 or 0.0) <= 1


def measure(pair: Pair) -> Worst:
    """The worst errors of a pair's tensors.

    Raises:
        AssertionError: if a tensor is missing, of another shape or dtype, not finite, or None on the
            TensorFlow side and not zero on the other; or if there is none.
    """
    assert pair.tf.keys() == pair.jax.keys(), f"only one side has {pair.tf.keys() ^ pair.jax.keys()}"
    assert pair.tf, "nothing was compared"
    worst = Worst()
    for name in pair.tf:
        worst = worst.join(_measure(name, pair))
    return worst


def _measure(name: str, pair: Pair) -> Worst:
    tf, jax = pair.tf[name], pair.jax[name]
    if tf is None:
        assert jax is None or not np.any(jax), f"{name}: None in TensorFlow, not zero in JAX"
        return Worst(0.0)
    assert jax is not None, f"{name}: None in JAX only"
    tf, jax = np.asarray(tf), np.asarray(jax)
    assert tf.shape == jax.shape, f"{name}: {tf.shape} in TensorFlow, {jax.shape} in JAX"
    if not np.issubdtype(tf.dtype, np.floating):
        assert np.array_equal(tf, jax), f"{name}: {tf} in TensorFlow, {jax} in JAX"
        return Worst(0.0)
    assert jax.dtype == np.float64, f"{name}: the JAX side is {jax.dtype}, not float64"
    assert np.isfinite(tf).all(), f"{name}: not finite in TensorFlow"
    assert np.isfinite(jax).all(), f"{name}: not finite in JAX"
    error = largest(tf - jax)
    if name in pair.noise:
        unit = max(largest(pair.noise[name]), FLOAT32_ROUNDING * largest(jax))
        return Worst(float32=_ratio(error, FLOAT32_FACTOR * unit))
    assert tf.dtype == np.float64, f"{name}: the TensorFlow side is {tf.dtype}, not float64"
    return Worst(_ratio(error, FLOAT64_BOUND * largest(jax)))


def _ratio(error: float, allowed: float) -> float:
    if error == 0:
        return 0.0
    return error / allowed if allowed else np.inf


def _worse(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return max(known) if known else None


def check(subject: Subject, config: Config) -> Worst:
    """Run one configuration. Returns its worst errors.

    Raises:
        AssertionError: if one is beyond its bound.
    """
    # Float64 is JAX's only within, so that the other tests of a process keep what they have.
    with precise_jax():
        worst = measure(subject.run(config))
    assert worst.agrees, f"{subject.symbol}: {worst}, in units of the bound, in {config}"
    return worst
