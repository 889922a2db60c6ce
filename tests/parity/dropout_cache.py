"""Parity of `choose_dropout_masks`: the dropout masks that a Keras cell keeps, because tfa never resets them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models.decoder import BasicDecoder
from jax_models.keras_cells import LSTMCell
from jax_models.keras_dropout import choose_dropout_masks
from jax_models.sampler import TrainingSampler
from tests.parity.decoders import SIZES
from tests.parity.decoding import LSTMState, Model, hold_together, states
from tests.parity.harness import Config, Pair, parity
from tests.parity.keras_side import record_dropout, stack_masks
from tests.parity.tensorflow_side import tf, tfa

FEATURES = 3


@parity(
    "tfa.seq2seq.BasicDecoder, dropout masks kept",
    configurations=st.fixed_dictionaries(
        SIZES
        | {
            "dropout": st.sampled_from([0.0, 0.5]),
            "recurrent_dropout": st.sampled_from([0.0, 0.3]),
            "implementation": st.sampled_from([1, 2]),
            "training": st.tuples(st.booleans(), st.booleans()),
        }
    ),
)
def kept_masks(config: Config) -> Pair:
    """Two calls of one decoder, on other inputs: what was dropped in the first is dropped in the second."""
    rng = np.random.default_rng(config["seed"])
    batch, time, units = config["batch"], config["time"], config["units"]
    model = Model(rng, FEATURES, units, vocab=3)
    options = {name: config[name] for name in ("dropout", "recurrent_dropout", "implementation")}
    for name in ("dropout", "recurrent_dropout"):
        setattr(model.tf_cell, name, options[name])
    # Keras' own constructor does so.
    model.tf_cell.implementation = 1 if options["recurrent_dropout"] else options["implementation"]
    cell = LSTMCell(units, param_dtype="float64", **options)
    given = {
        "inputs": rng.normal(size=(2, batch, time, FEATURES)),
        "h": rng.normal(size=(batch, units)),
        "c": rng.normal(size=(batch, units)),
    }
    tf.random.set_seed(config["seed"])
    recorded = record_dropout(model.tf_cell)
    first: dict[str, list[Any]] = {}

    def run_tf(x: Any) -> dict[str, Any]:
        sampler = tfa.seq2seq.TrainingSampler()
        decoder = tfa.seq2seq.BasicDecoder(model.tf_cell, sampler, model.tf_output_layer, dtype="float64")
        results = {}
        for call, training in enumerate(config["training"]):
            output, (h, c), _ = decoder(x["inputs"][call], initial_state=[x["h"], x["c"]], training=training)
            first.update(first or recorded)
            results |= {f"{call}/output": output.rnn_output, **states(f"{call}/state", c, h)}
        return results

    def run_jax(leaves: Any, x: Any) -> dict[str, Any]:
        decoder = BasicDecoder(cell, TrainingSampler(), model.output_layer)
        masks, results = None, {}
        for call, training in enumerate(config["training"]):
            if call == 0 and training:
                masks = stack_masks(first) if first else None
            else:
                masks = choose_dropout_masks(
                    cell, None, batch, FEATURES, jnp.float64, training=False, earlier=masks
                )
            output, state, _ = decoder.apply(
                {"params": leaves},
                x["inputs"][call],
                initial_state=LSTMState(x["c"], x["h"]),
                dropout_masks=masks,
            )
            results |= {f"{call}/output": output.rnn_output, **states(f"{call}/state", state.c, state.h)}
        return results

    return hold_together(config["seed"], given=given, model=model, run_tf=run_tf, run_jax=run_jax)
