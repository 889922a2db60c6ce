"""TF1's loops over time, over cells of all kinds and stacks of them."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models.rnn import bidirectional_dynamic_rnn, dynamic_rnn, static_rnn
from oracle.bridge.layout import join
from tests.parity.harness import Config, Pair, parity
from tests.parity.tf1_cells import KEEP_PROB, stacked_pair
from tests.parity.tf1_graph import (
    compare,
    draw_arrays,
    draw_state,
    flatten_named,
    pick_state,
    tf,
    v1,
)
from tests.parity.tf1_pairs import CELLS, CellPair, Noise, Recording, replay, step_draws

FEATURES = 3

DROPOUT = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "input_keep_prob": KEEP_PROB,
            "output_keep_prob": KEEP_PROB,
            "state_keep_prob": KEEP_PROB,
            "variational": st.booleans(),
        }
    ),
)

COMMON = {
    "batch": st.sampled_from([1, 3]),
    "time": st.sampled_from([1, 4]),
    "units": st.sampled_from([2, 4]),
    "lengths": st.one_of(st.none(), st.lists(st.integers(0, 4), min_size=3, max_size=3)),
    "zero_state": st.booleans(),
    "seed": st.integers(0, 2**16),
    "cell": st.sampled_from([*sorted(CELLS), "projected", "stacked"]),
    "dropout": DROPOUT,
}


def make_pair(config: Config) -> CellPair:
    units, dropout = config["units"], config["dropout"]
    if config["cell"] == "stacked":
        none = dict.fromkeys(("input_keep_prob", "output_keep_prob", "state_keep_prob"), 1.0)
        return stacked_pair(FEATURES, units, dropout or {**none, "variational": False})
    if config["cell"] == "projected":
        return CELLS["lstm"](FEATURES, units, num_proj=3, use_peepholes=True, cell_clip=0.5)
    return CELLS[config["cell"]](FEATURES, units)


def lengths_of(config: Config) -> np.ndarray | None:
    if config["lengths"] is None:
        return None
    return np.minimum(config["lengths"][: config["batch"]], config["time"]).astype(np.int32)


def input_shape(config: Config) -> tuple[int, ...]:
    shape = (config["batch"], config["time"])
    return (*(shape[::-1] if config.get("time_major") else shape), FEATURES)


class LoopPair:
    """One cell of a loop on both sides: its state among the sources, and its dropout replayed."""

    def __init__(self, config: Config, name: str) -> None:
        self.config, self.name = config, name
        self.pair = make_pair(config)
        self.draws = step_draws(self.pair.module, FEATURES)
        self.sources: dict[str, np.ndarray] = {}
        if not config["zero_state"]:
            seed = config["seed"] + len(name)
            self.sources = draw_state(self.pair.module, name, config["batch"], seed)

    def build(self, tensors: dict) -> tuple[Any, Any, Noise]:
        """TF1's cell, its initial state, and where its noise will be found."""
        noise = Noise()
        cell = Recording(self.pair.build(noise), self.draws)
        state = cell.zero_state(self.config["batch"], tf.float64)
        return cell, pick_state(state, self.name, tensors) if self.sources else None, noise

    def state(self, cell: Any, arrays: dict) -> Any:
        """The oracle's initial state."""
        zeros = cell.zero_state(self.config["batch"], jnp.float64)
        return pick_state(zeros, self.name, arrays) if self.sources else None


def turn_back(values: Any, lengths: np.ndarray | None, time_major: bool) -> Any:
    """The steps in the order in which the backward cell took them."""
    axis = 0 if time_major else 1
    if lengths is None:
        return tf.reverse(values, [axis])
    return tf.reverse_sequence(values, lengths, seq_axis=axis, batch_axis=1 - axis)


class BothCells(nn.Module):
    """The two cells of a bidirectional loop."""

    fw: nn.Module
    bw: nn.Module


def time_first(uniform: Any, time_major: bool) -> Any:
    return uniform if time_major else tf.transpose(uniform, (1, 0, 2))


@parity(
    "tf.compat.v1.nn.dynamic_rnn",
    configurations=st.fixed_dictionaries({**COMMON, "time_major": st.booleans()}),
)
def dynamic(config: Config) -> Pair:
    loop, lengths = LoopPair(config, "state"), lengths_of(config)
    time_major = config["time_major"]
    sources = draw_arrays(config["seed"], {"inputs": input_shape(config)}) | loop.sources

    def build(tensors: dict) -> tuple[dict, Any]:
        cell, state, noise = loop.build(tensors)
        outputs, final = v1.nn.dynamic_rnn(
            cell,
            tensors["inputs"],
            sequence_length=lengths,
            initial_state=state,
            dtype=tf.float64,
            time_major=time_major,
        )
        outputs, drawn = cell.part(outputs)
        noise.steps = [time_first(uniform, time_major) for uniform in drawn]
        return {"outputs": outputs} | flatten_named("final_state", final), vars(noise)

    def forward(cell: Any, arrays: dict, noise: dict) -> dict:
        outputs, final = dynamic_rnn(
            cell,
            arrays["inputs"],
            sequence_length=None if lengths is None else jnp.asarray(lengths),
            initial_state=loop.state(cell, arrays),
            time_major=time_major,
            dropout_masks=replay(cell, Noise(**noise)),
        )
        return {"outputs": outputs} | flatten_named("final_state", final)

    return compare(build, sources, loop.pair.layout, config["seed"], loop.pair.module, forward)


@parity("tf.compat.v1.nn.static_rnn", configurations=st.fixed_dictionaries(COMMON))
def static(config: Config) -> Pair:
    loop, lengths = LoopPair(config, "state"), lengths_of(config)
    shapes = {f"inputs/{t}": (config["batch"], FEATURES) for t in range(config["time"])}
    sources = draw_arrays(config["seed"], shapes) | loop.sources

    def build(tensors: dict) -> tuple[dict, Any]:
        cell, state, noise = loop.build(tensors)
        steps, final = v1.nn.static_rnn(
            cell,
            [tensors[name] for name in sorted(shapes)],
            sequence_length=lengths,
            initial_state=state,
            dtype=tf.float64,
        )
        outputs, drawn = zip(*(cell.part(step) for step in steps), strict=True)
        noise.steps = [tf.stack(uniform) for uniform in zip(*drawn, strict=True)]
        return flatten_named("outputs", outputs) | flatten_named("final_state", final), vars(noise)

    def forward(cell: Any, arrays: dict, noise: dict) -> dict:
        outputs, final = static_rnn(
            cell,
            [arrays[name] for name in sorted(shapes)],
            sequence_length=None if lengths is None else jnp.asarray(lengths),
            initial_state=loop.state(cell, arrays),
            dropout_masks=replay(cell, Noise(**noise)),
        )
        return flatten_named("outputs", tuple(outputs)) | flatten_named("final_state", final)

    return compare(build, sources, loop.pair.layout, config["seed"], loop.pair.module, forward)


@parity(
    "tf.compat.v1.nn.bidirectional_dynamic_rnn",
    configurations=st.fixed_dictionaries({**COMMON, "time_major": st.booleans()}),
)
def bidirectional(config: Config) -> Pair:
    loops, lengths = [LoopPair(config, "state_fw"), LoopPair(config, "bw_state")], lengths_of(config)
    time_major = config["time_major"]
    sources = draw_arrays(config["seed"], {"inputs": input_shape(config)})
    sources |= loops[0].sources | loops[1].sources
    module = BothCells(loops[0].pair.module, loops[1].pair.module)
    layout = join(
        {
            (f"{way}/{path}".rstrip("/"), f"{way}/{scope}"): layout
            for way, loop in zip(("fw", "bw"), loops, strict=True)
            for (path, scope), layout in loop.pair.parts.items()
        }
    )

    def build(tensors: dict) -> tuple[dict, Any]:
        (fw, state_fw, noise_fw), (bw, state_bw, noise_bw) = (loop.build(tensors) for loop in loops)
        outputs, final = v1.nn.bidirectional_dynamic_rnn(
            fw,
            bw,
            tensors["inputs"],
            sequence_length=lengths,
            initial_state_fw=state_fw,
            initial_state_bw=state_bw,
            dtype=tf.float64,
            time_major=time_major,
        )
        output_fw, drawn_fw = fw.part(outputs[0])
        output_bw, drawn_bw = bw.part(outputs[1])
        # The loop has turned the backward cell's draws round, as it has its outputs.
        drawn_bw = [turn_back(uniform, lengths, time_major) for uniform in drawn_bw]
        noise_fw.steps = [time_first(uniform, time_major) for uniform in drawn_fw]
        noise_bw.steps = [time_first(uniform, time_major) for uniform in drawn_bw]
        results = flatten_named("outputs", (output_fw, output_bw))
        return results | flatten_named("final_state", final), [vars(noise_fw), vars(noise_bw)]

    def forward(both: Any, arrays: dict, noise: Any) -> dict:
        cells = (both.fw, both.bw)
        outputs, final = bidirectional_dynamic_rnn(
            *cells,
            arrays["inputs"],
            sequence_length=None if lengths is None else jnp.asarray(lengths),
            initial_state_fw=loops[0].state(both.fw, arrays),
            initial_state_bw=loops[1].state(both.bw, arrays),
            time_major=time_major,
            dropout_masks=tuple(replay(c, Noise(**n)) for c, n in zip(cells, noise, strict=True)),
        )
        return flatten_named("outputs", outputs) | flatten_named("final_state", final)

    return compare(build, sources, layout, config["seed"], module, forward)
