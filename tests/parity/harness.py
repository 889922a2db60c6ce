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

FLOAT64_BOUND = 1e-12
"""The largest error allowed, as a part of the tensor's largest element, in float64."""

Config = Mapping[str, Any]
"""One configuration: plain Python values, among them the `seed` of every random array."""

Arrays = Mapping[str, np.ndarray | None]


@dataclass(frozen=True)
class Pair:
    """The same named tensors from both sides: outputs, states, `loss`, `gradient/...`.

    A gradient that TensorFlow gives as None is given as None, and must be all zeros (or None) on the
    JAX side. `noise` is for the symbols that TensorFlow refuses in float64: the error that float32
    arithmetic makes by itself in each tensor, measured as `jax float32 - jax float64`; the `jax`
    arrays are then the float64 ones and the bound is `FLOAT32_NOISE` times that noise.
    """

    tf: Arrays
    jax: Arrays
    noise: Mapping[str, np.ndarray] = field(default_factory=dict)


FLOAT32_NOISE = 8.0
"""In float32: how many times the oracle's own float32 error a port's may be."""

FLOAT32_FLOOR = 4 * float(np.finfo(np.float32).eps)
"""In float32: the error always allowed, as a part of the largest element."""


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


def worst_error(pair: Pair) -> float:
    """The largest error of any tensor, in units of its bound: at most 1 if the sides agree.

    Raises:
        AssertionError: if a tensor is missing, of another shape or dtype, not finite, or None on the
            TensorFlow side and not zero on the other.
    """
    assert pair.tf.keys() == pair.jax.keys(), f"only one side has {pair.tf.keys() ^ pair.jax.keys()}"
    assert pair.tf, "nothing was compared"
    return max(_error(name, pair) for name in pair.tf)


def _error(name: str, pair: Pair) -> float:
    tf, jax = pair.tf[name], pair.jax[name]
    if tf is None:
        assert jax is None or not np.any(jax), f"{name}: None in TensorFlow, not zero in JAX"
        return 0.0
    assert jax is not None, f"{name}: None in JAX only"
    tf, jax = np.asarray(tf), np.asarray(jax)
    assert tf.shape == jax.shape, f"{name}: {tf.shape} in TensorFlow, {jax.shape} in JAX"
    if not np.issubdtype(tf.dtype, np.floating):
        assert np.array_equal(tf, jax), f"{name}: {tf} in TensorFlow, {jax} in JAX"
        return 0.0
    assert jax.dtype == np.float64, f"{name}: the JAX side is {jax.dtype}, not float64"
    assert np.isfinite(tf).all() and np.isfinite(jax).all(), f"{name}: not finite"
    scale = float(np.abs(jax).max(initial=0.0))
    if name in pair.noise:
        noise = float(np.abs(pair.noise[name]).max(initial=0.0))
        bound = max(FLOAT32_NOISE * noise, FLOAT32_FLOOR * scale)
    else:
        assert tf.dtype == np.float64, f"{name}: the TensorFlow side is {tf.dtype}, not float64"
        bound = FLOAT64_BOUND * scale
    difference = float(np.abs(tf - jax).max(initial=0.0))
    return 0.0 if difference == 0 else difference / bound if bound else np.inf


def check(subject: Subject, config: Config) -> float:
    """Run one configuration. Returns the worst error in units of the bound; raises if above 1."""
    worst = worst_error(subject.run(config))
    assert worst <= 1, f"{subject.symbol}: the worst error is {worst:.3g} times its bound in {config}"
    return worst
