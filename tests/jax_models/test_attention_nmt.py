from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jax_models.attention_nmt import AttentionNMT, masked_loss
from oracle.bridge.nmt_sites import find_nmt_sites
from oracle.spec import Attention
from oracle.spec import AttentionNMT as Spec

pytestmark = pytest.mark.jax

MECHANISMS = ("luong", "bahdanau", "luong_monotonic", "bahdanau_monotonic")

BATCH = {
    "source": jnp.array([[3, 4, 5], [6, 0, 0]], jnp.int32),
    "source_length": jnp.array([3, 1], jnp.int32),
    "target": jnp.array([[1, 3, 4, 2], [1, 2, 0, 0]], jnp.int32),
    "target_length": jnp.array([3, 1], jnp.int32),
}


def make(mechanism: str = "bahdanau", cell: str = "lstm", layers: int = 1, layer_units: int | None = 5):
    return AttentionNMT(
        source_vocab=7,
        target_vocab=6,
        embedding=3,
        cell=cell,
        units=2,
        layers=layers,
        mechanism=mechanism,
        attention_units=4,
        attention_scaled=True,
        attention_layer_units=layer_units,
    )


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("cell", "layers", "layer_units"), [("lstm", 2, 5), ("gru", 1, None)])
def test_the_leaves_are_those_of_the_sites(mechanism, cell, layers, layer_units):
    module = make(mechanism, cell, layers, layer_units)
    made = jax.eval_shape(lambda: module.init(jax.random.key(0), **BATCH))
    spec = Spec(7, 6, 3, cell, 2, layers, Attention(mechanism, 4, True, layer_units))
    wanted = {
        f"{site.path}/{leaf}": shape
        for site in find_nmt_sites(spec)
        for leaf, shape in site.layout.leaves.items()
    }
    assert {path: leaf.shape for path, leaf in flatten_dict(made["params"], sep="/").items()} == wanted


def test_padding_changes_nothing():
    module = make()
    variables = {"params": module.init(jax.random.key(0), **BATCH)["params"]}
    loss = jax.jit(lambda batch: _loss(module, variables, batch))
    other = BATCH | {
        "source": BATCH["source"].at[1, 1:].set(5),
        "target": BATCH["target"].at[1, 2:].set(4),
    }
    assert loss(BATCH) == loss(other)
    result = module.apply(variables, **other)
    assert not np.asarray(result.encoded)[1, 1:].any()
    assert not np.asarray(result.decoded.alignments)[1, :, 1:].any()
    np.testing.assert_allclose(result.decoded.alignments.sum(-1), 1, rtol=1e-5)


def test_the_embedded_source_has_a_gradient_by_its_perturbation():
    module = make()
    made = module.init(jax.random.key(0), **BATCH)
    gradients = jax.jit(
        jax.grad(lambda p: _loss(module, {"params": made["params"], "perturbations": p}, BATCH))
    )(made["perturbations"])
    embedded = np.asarray(gradients["embedded_source"])
    assert embedded[0].any(axis=-1).all()
    assert embedded[1, 0].any()
    assert not embedded[1, 1:].any()
    assert set(gradients) == {
        "embedded_source",
        "embedded_target",
        "encoder_state_0_c",
        "encoder_state_0_h",
    }


def test_decoding_compiles_and_a_beam_of_one_is_greedy():
    module = make("luong", "gru", 2)
    variables = {"params": module.init(jax.random.key(1), **BATCH)["params"]}
    options = {"start_token": 1, "end_token": 2, "maximum_iterations": 5}
    source = BATCH["source"], BATCH["source_length"]
    greedy, lengths = jax.jit(lambda v: module.apply(v, *source, **options, method="greedy_decode"))(
        variables
    )
    beam, beam_lengths = jax.jit(
        lambda v: module.apply(v, *source, **options, beam_width=1, method="beam_search_decode")
    )(variables)
    assert greedy.shape == (2, 5)
    assert beam.shape == (2, 5, 1)
    np.testing.assert_array_equal(lengths, beam_lengths[:, 0])
    for row, length in enumerate(lengths.tolist()):
        np.testing.assert_array_equal(greedy[row, :length], beam[row, :length, 0])


def _loss(module, variables, batch):
    result = module.apply(variables, **batch)
    return masked_loss(result.decoded.logits, batch["target"][:, 1:], batch["target_length"])


@pytest.mark.tf
def test_a_checkpoint_names_the_variables_as_the_port_does(tmp_path):
    from tests.parity.attention_nmt import draw_weights, make_port
    from tests.parity.tensorflow_side import tf

    spec = Spec(7, 6, 3, "lstm", 2, 2, Attention("luong", 4, True, 5))
    port = make_port(spec, draw_weights(spec, np.random.default_rng(0)))
    prefix = tf.train.Checkpoint(encoder=port.encoder, decoder=port.decoder).write(str(tmp_path / "nmt"))
    saved = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for name, _ in tf.train.list_variables(prefix)}
    assert saved - {"_CHECKPOINTABLE_OBJECT_GRAPH"} == port.variables_by_name().keys()
    assert saved - {"_CHECKPOINTABLE_OBJECT_GRAPH"} == {
        name for site in find_nmt_sites(spec) for name in site.variables.values()
    }


@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["function", "xla"])
def test_the_port_gives_the_same_compiled(mode):
    from tests.parity.attention_nmt import draw_weights, make_port
    from tests.parity.tensorflow_side import tf

    spec = Spec(7, 6, 3, "lstm", 2, 1, Attention("bahdanau_monotonic", 5, True, None))
    port = make_port(spec, draw_weights(spec, np.random.default_rng(0)))
    batch = {name: tf.constant(np.asarray(array)) for name, array in BATCH.items()}
    eager, compiled = port.step(batch), tf.function(port.step, jit_compile=mode == "xla")(batch)
    for here, there in zip(tf.nest.flatten(eager), tf.nest.flatten(compiled), strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-14)
