"""The oracle's programs are lowered for accelerators that are not here, and give up buffers only there."""

from __future__ import annotations

import pytest

from oracle.case import cast_case, random_case, weight_shapes
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder, Spec

pytestmark = pytest.mark.jax

SPECS = {
    "encoder-decoder": EncoderDecoder(5, 4, LSTM(3), LSTM(3), lengths=True),
    "luong": AttentionNMT(11, 13, 4, "lstm", 3, 2, Attention("luong", 6, layer_units=5)),
    "bahdanau": AttentionNMT(11, 13, 4, "gru", 3, 1, Attention("bahdanau", 6, scaled=True)),
    "monotonic": AttentionNMT(11, 13, 4, "gru", 3, 1, Attention("luong_monotonic", 6)),
}


def lower(spec: Spec, platform: str, **options) -> str:
    """The program of a step for a platform, in StableHLO."""
    import jax

    from oracle.run_jax import donated_arguments, find_step
    from oracle.steps.leaves import nest_leaves

    weights, batch = cast_case(random_case(spec, batch_size=2, source_time=7, target_time=5), "float32")
    step = jax.jit(find_step(spec).differentiate(spec, **options), donate_argnums=donated_arguments(platform))
    return step.trace(nest_leaves(weights), batch).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(
    "options", [{"path": "fast"}, {"path": "fast", "limit_bytes": 0}, {"path": "plain"}], ids=str
)
@pytest.mark.parametrize("name", SPECS)
def test_every_program_is_lowered_for_accelerators(name, options, platform):
    text = lower(SPECS[name], platform, **options)
    # What is no operation of StableHLO's would be a kernel of one platform.
    assert "custom_call" not in text
    # The weights are given up, and nothing else.
    given_up = text.count("jax.buffer_donor") + text.count("tf.aliasing_output")
    assert given_up == len(weight_shapes(SPECS[name]))


def test_nothing_is_given_up_on_a_cpu():
    text = lower(SPECS["luong"], "cpu", path="fast")
    assert "jax.buffer_donor" not in text
    assert "tf.aliasing_output" not in text
