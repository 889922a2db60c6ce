"""The public names, and the list of quirks, are what they say they are."""

from __future__ import annotations

import importlib
import inspect

import pytest

from jax_models.quirks import QUIRKS

pytestmark = pytest.mark.jax


@pytest.mark.tf
def test_seq2seq_has_every_name_of_tfa_seq2seq() -> None:
    from tests.parity.tensorflow_side import tfa

    public = {name for name in dir(tfa.seq2seq) if not name.startswith("_")}
    # Submodules are no part of the interface.
    public = {name for name in public if not inspect.ismodule(getattr(tfa.seq2seq, name))}
    from jax_models import seq2seq

    assert set(seq2seq.__all__) == public
    assert len(public) == 32


PROMISED = {
    "seq2seq": """AttentionMechanism BahdanauAttention LuongAttention BahdanauMonotonicAttention
        LuongMonotonicAttention AttentionWrapper AttentionWrapperState Decoder BaseDecoder BasicDecoder
        BasicDecoderOutput BeamSearchDecoder BeamSearchDecoderState BeamSearchDecoderOutput
        FinalBeamSearchDecoderOutput Sampler TrainingSampler GreedyEmbeddingSampler SampleEmbeddingSampler
        ScheduledEmbeddingTrainingSampler ScheduledOutputTrainingSampler InferenceSampler CustomSampler
        dynamic_decode sequence_loss SequenceLoss tile_batch gather_tree gather_tree_from_array safe_cumprod
        monotonic_attention hardmax""",
    "tf1": """BasicRNNCell BasicLSTMCell LSTMCell GRUCell MultiRNNCell DropoutWrapper ResidualWrapper
        DeviceWrapper LayerNormBasicLSTMCell dynamic_rnn bidirectional_dynamic_rnn static_rnn""",
    "keras_layers": """SimpleRNN LSTM GRU RNN StackedRNNCells Bidirectional Embedding Masking Dense
        SimpleRNNCell LSTMCell GRUCell""",
    "tfa_cells": "LayerNormLSTMCell LayerNormSimpleRNNCell NASCell ESNCell PeepholeLSTMCell",
}
"""What each namespace is there for, under TensorFlow's names."""

OWN = {
    "seq2seq": set(),
    "tf1": {"LSTMState"},
    "keras_layers": {
        "DropoutMasks",
        "choose_dropout_masks",
        "flatten_keras_states",
        "unflatten_keras_states",
    },
    "tfa_cells": set(),
}
"""What has no counterpart in TensorFlow: states and masks as values."""


@pytest.mark.parametrize("module", PROMISED)
def test_a_namespace_has_what_was_promised_and_little_else(module: str) -> None:
    names = importlib.import_module(f"jax_models.{module}").__all__
    assert set(names) == set(PROMISED[module].split()) | OWN[module]
    assert len(names) == len(set(names))


@pytest.mark.tf
@pytest.mark.parametrize("module", PROMISED)
def test_tensorflow_has_the_names_too(module: str) -> None:
    from tests.parity.tensorflow_side import tf, tfa

    v1 = tf.compat.v1.nn
    homes = {
        "seq2seq": [tfa.seq2seq],
        # `LayerNormBasicLSTMCell` was in tf.contrib, which TensorFlow 2 has no more.
        "tf1": [v1, v1.rnn_cell],
        "keras_layers": [tf.keras.layers],
        "tfa_cells": [tfa.rnn],
    }[module]
    names = set(PROMISED[module].split()) - {"LayerNormBasicLSTMCell"}
    assert not {name for name in names if not any(hasattr(home, name) for home in homes)}
    if module == "tfa_cells":
        public = {name for name, value in vars(tfa.rnn).items() if inspect.isclass(value)}
        assert names == {name for name in public if name.endswith("Cell")} - {"AbstractRNNCell"}


@pytest.mark.parametrize("module", PROMISED)
def test_every_public_name_is_there_and_says_what_it_is(module: str) -> None:
    namespace = importlib.import_module(f"jax_models.{module}")
    for name in namespace.__all__:
        assert inspect.getdoc(getattr(namespace, name)), name


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: f"{quirk.where}.{quirk.switch}")
def test_quirk_is_a_switch_whose_default_is_tensorflows(quirk) -> None:
    module, name = quirk.where.split(".")
    owner = getattr(importlib.import_module(f"jax_models.{module}"), name)
    parameter = inspect.signature(owner).parameters[quirk.switch]
    assert parameter.default == quirk.default
    assert quirk.corrected != quirk.default


def test_jax_models_never_imports_tensorflow_nor_the_oracle() -> None:
    import ast
    from pathlib import Path

    import jax_models

    for path in Path(jax_models.__file__).parent.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & {
                "tensorflow",
                "tensorflow_addons",
                "keras",
                "oracle",
                "tf_models",
            }, path
