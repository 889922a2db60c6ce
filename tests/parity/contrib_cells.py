"""`tf.contrib.rnn`'s cell, against the numbers that TF 1.15 computed (`tests/golden/contrib_cells.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from hypothesis import strategies as st

from jax_models.cell_base import LSTMState, PerStep
from jax_models.layer_norm_cells import LayerNormBasicLSTMCell
from jax_models.rnn import dynamic_rnn
from oracle.bridge import cell_layouts
from tests.parity.harness import Config, Pair, parity

GOLDEN = Path(__file__).parents[1] / "golden" / "contrib_cells.npz"
CASES = 16


def read_case(case: int) -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return {k.removeprefix(f"{case}/"): stored[k] for k in stored.files if k.startswith(f"{case}/")}


def under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


@parity(
    "tf.contrib.rnn.LayerNormBasicLSTMCell",
    configurations=st.fixed_dictionaries({"case": st.integers(0, CASES - 1)}),
)
def layer_norm_basic_lstm_cell(config: Config) -> Pair:
    stored = read_case(config["case"])
    case = json.loads(str(stored["config"]))
    activation = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[case["activation"]]
    names = ("forget_bias", "layer_norm", "norm_gain", "norm_shift", "dropout_keep_prob")
    cell = LayerNormBasicLSTMCell(
        case["units"], activation=activation, **{name: case[name] for name in names}
    )
    layout = cell_layouts.contrib_layer_norm_lstm(4, case["units"], layer_norm=case["layer_norm"])
    masks = None
    if "uniform" in stored:
        masks = PerStep(jnp.asarray(stored["uniform"] >= 1 - case["dropout_keep_prob"]))
    lengths = None if case["lengths"] is None else jnp.asarray(case["lengths"])

    def forward(cell: Any, source: dict[str, Any]) -> dict[str, Any]:
        outputs, final = dynamic_rnn(
            cell,
            source["inputs"],
            sequence_length=lengths,
            initial_state=LSTMState(source["c"], source["h"]),
            dropout_masks=masks,
        )
        return {"outputs": outputs, "c": final.c, "h": final.h}

    def measure(leaves: dict[str, Any], source: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        variables = {"params": unflatten_dict(leaves, sep="/")}
        results = nn.apply(forward, cell)(variables, source)
        targets = under("target/", stored)
        return sum(jnp.sum((results[k] - targets[k]) ** 2) / 2 for k in sorted(results)), results

    leaves = layout.to_leaves(under("variable/", stored))
    arrays = jax.tree.map(jnp.asarray, (leaves, under("source/", stored)))
    with jax.disable_jit():
        (loss, results), gradients = jax.value_and_grad(measure, (0, 1), has_aux=True)(*arrays)
    results |= {"loss": loss} | {f"gradient/{k}": v for part in gradients for k, v in part.items()}

    tf_side = under("result/", stored)
    of_variables = under("gradient/variable/", tf_side)
    tf_side = {k: v for k, v in tf_side.items() if not k.startswith("gradient/variable/")}
    tf_side |= {f"gradient/{k}": v for k, v in layout.gradients_to_leaves(of_variables).items()}
    return Pair(tf=tf_side, jax=jax.tree.map(np.asarray, results))
