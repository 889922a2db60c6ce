"""What an operation is, and what time is its own."""

from __future__ import annotations

import pytest

from bench.analysis import share_out
from bench.profiling import KINDS, classify, count_own, profile_step
from bench.results import Profile

PROGRAM = """\
HloModule jit_compute

%fused_computation (param_0: f32[4,8]) -> f32[4,8] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  ROOT %tanh.1 = f32[4,8]{1,0} tanh(f32[4,8]{1,0} %param_0)
}

%fused_computation.1 (param_0.1: f32[4,8]) -> f32[8,4] {
  %param_0.1 = f32[4,8]{1,0} parameter(0)
  ROOT %transpose.1 = f32[8,4]{1,0} transpose(f32[4,8]{1,0} %param_0.1), dimensions={1,0}
}

%fused_computation.2 (param_0.2: f32[4,8]) -> f32[4] {
  %param_0.2 = f32[4,8]{1,0} parameter(0)
  %multiply.1 = f32[4,8]{1,0} multiply(f32[4,8]{1,0} %param_0.2, f32[4,8]{1,0} %param_0.2)
  ROOT %reduce.1 = f32[4]{0} reduce(f32[4,8]{1,0} %multiply.1), dimensions={1}
}

ENTRY %main.1 (Arg_0: f32[4,8]) -> (f32[4], f32[8,4]) {
  %Arg_0 = f32[4,8]{1,0} parameter(0)
  %tanh_fusion = f32[4,8]{1,0} fusion(f32[4,8]{1,0} %Arg_0), kind=kLoop, calls=%fused_computation
  %move_fusion = f32[8,4]{1,0} fusion(f32[4,8]{1,0} %tanh_fusion), kind=kLoop, calls=%fused_computation.1
  %sum_fusion = f32[4]{0} fusion(f32[4,8]{1,0} %tanh_fusion), kind=kLoop, calls=%fused_computation.2
  %dot.7 = f32[4,4]{1,0} dot(f32[4,8]{1,0} %tanh_fusion, f32[8,4]{1,0} %move_fusion)
  %while.2 = (f32[4]{0}, s32[]) while((f32[4]{0}, s32[]) %tuple.1), condition=%c, body=%b
  ROOT %tuple.3 = (f32[4]{0}, f32[8,4]{1,0}) tuple(%sum_fusion, %move_fusion)
}
"""


def test_a_fusion_is_what_is_computed_inside():
    kinds = classify(PROGRAM)
    assert kinds["tanh_fusion"] == "elements"
    assert kinds["move_fusion"] == "copies"
    assert kinds["sum_fusion"] == "sums"
    assert kinds["dot.7"] == "products"
    assert "while.2" not in kinds


def test_the_time_of_an_event_is_less_that_of_those_inside():
    def event(name, start, duration, thread=1):
        return {"pid": 1, "tid": thread, "ts": start, "dur": duration, "args": {"hlo_op": name}}

    events = [event("while.2", 0, 10), event("dot.7", 1, 4), event("dot.7", 5, 3), event("dot.7", 2, 5, 2)]
    own = count_own(events)
    assert own == pytest.approx({"while.2": 3e-6, "dot.7": 12e-6})


@pytest.mark.jax
def test_a_product_is_seen_in_a_real_step():
    import jax
    import jax.numpy as jnp

    array = jnp.ones([512, 512])
    compiled = jax.jit(lambda a: (jnp.tanh(a @ a @ a), jnp.sin(a))).lower(array).compile()

    def step():
        return jax.block_until_ready(compiled(array))

    step()
    parts = profile_step(step, compiled.as_text())
    assert set(parts) == set(KINDS)
    assert parts["products"] > 0
    assert parts["elements"] > 0
    shares = share_out(Profile("gradient/x", "fast", 1.0, 0.5, dict(parts)))
    assert sum(shares.values()) == pytest.approx(1)
