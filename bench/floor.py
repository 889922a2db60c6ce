"""The floor, measured: the matrix products of a gradient step alone, in NumPy and in JAX.

Every product is computed as often as the step needs it, one after the other. Operands of products that a
step repeats change from one to the next, as a state does; the kernel stays, as a kernel does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.gemms import Gemm
from bench.prepared import Clock, Prepared
from oracle.frameworks import import_jax

TRIES = 5
"""So often a product is timed before its form is chosen."""

VARIETY = 8
"""So many operands take turns."""


def prepare_numpy(gemms: Sequence[Gemm], *, seed: int = 0) -> Prepared:
    """The products in NumPy, each into memory that is there."""
    operands = [_draw(gemm, seed) for gemm in gemms]
    results = [np.empty(_shape(gemm, gemm.m, gemm.n), np.float32) for gemm in gemms]

    def step() -> None:
        for gemm, (many, kernel), out in zip(gemms, operands, results, strict=True):
            for number in range(gemm.count):
                np.matmul(many[number % len(many)], kernel, out=out)

    clock = Clock()
    step()
    clock.lap()
    return Prepared(step, dict, clock.total())


def prepare_jax(gemms: Sequence[Gemm], *, seed: int = 0) -> Prepared:
    """The products in one program of JAX, those of a step in a loop."""
    jax = import_jax()
    placed = jax.device_put([_draw(gemm, seed) for gemm in gemms])
    forms = [_choose_form(gemm, each) for gemm, each in zip(gemms, placed, strict=True)]

    def compute(operands: Any) -> list[Any]:
        every = zip(gemms, forms, operands, strict=True)
        return [_repeat(gemm.count, form, *each) for gemm, form, each in every]

    clock = Clock()
    lowered = jax.jit(compute).lower(placed)
    trace = clock.lap()
    compiled = lowered.compile()
    compiling = clock.lap()

    def step() -> None:
        jax.block_until_ready(compiled(placed))

    step()
    clock.lap()
    return Prepared(step, dict, clock.total(), trace, compiling)


Form = Callable[[Any, Any], Any]


def _multiply(first: Any, second: Any) -> Any:
    """The product as a product of matrices."""
    return first @ second


def _sum(first: Any, second: Any) -> Any:
    """The product of rows and matrices of their own as a sum over elements: [batch, 1, k], [batch, k, n]."""
    return (first.swapaxes(-1, -2) * second).sum(axis=-2, keepdims=True)


def _choose_form(gemm: Gemm, operands: Any) -> Form:
    """How JAX does a product fastest. XLA's product of many small matrices is none too fast on a CPU."""
    if gemm.batch == 1 or gemm.m != 1:
        return _multiply
    jax = import_jax()
    seconds = {}
    for form in (_multiply, _sum):
        program = jax.jit(functools.partial(_repeat, gemm.count, form)).lower(*operands).compile()
        jax.block_until_ready(program(*operands))
        tries = []
        for _ in range(TRIES):
            clock = Clock()
            jax.block_until_ready(program(*operands))
            tries.append(clock.lap())
        seconds[form] = min(tries)
    return min(seconds, key=lambda form: seconds[form])


def _repeat(count: int, form: Form, many: Any, kernel: Any) -> Any:
    """A product so often, each time of the next operand."""
    if count == 1:
        return form(many[0], kernel)
    jax = import_jax()

    def body(number: Any, _: Any) -> Any:
        return form(jax.lax.dynamic_index_in_dim(many, number % len(many), keepdims=False), kernel)

    return jax.lax.fori_loop(1, count, body, form(many[0], kernel))


def _draw(gemm: Gemm, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([seed, gemm.m, gemm.k, gemm.n])
    many = (min(gemm.count, VARIETY), *_shape(gemm, gemm.m, gemm.k))
    shapes = many, _shape(gemm, gemm.k, gemm.n)
    first, second = (generator.standard_normal(shape, np.float32) for shape in shapes)
    return first, second


def _shape(gemm: Gemm, rows: int, columns: int) -> tuple[int, ...]:
    return (rows, columns) if gemm.batch == 1 else (gemm.batch, rows, columns)
