"""Parity of `jax_models.attention`: hardmax, the base mechanism, Luong and Bahdanau."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models.attention import AttentionMechanism, BahdanauAttention, LuongAttention, hardmax
from oracle.bridge.attention_layouts import attention_layer, bahdanau_attention, luong_attention
from oracle.bridge.layout import Layout, join
from oracle.bridge.layouts import dense
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf, tfa

MASKED_BY = (
    "nothing",
    "lengths",
    "int64 lengths",
    "mask",
    "lengths through __call__",
    "mask through __call__",
    "Keras mask through __call__",
    "Keras mask of setup_memory",
    "constructor with lengths",
    "constructor with Keras mask",
    "constructor with lengths and no memory",
)
"""The ways of telling TensorFlow which steps are real. Two of them it ignores: the one is not given to
ours, the other is given to ours as well, and ignored by default."""

IGNORED_BY_TENSORFLOW = ("Keras mask of setup_memory", "constructor with lengths and no memory")

SIZES = {
    "batch": st.sampled_from([1, 3]),
    "memory": st.sampled_from([1, 4]),
    "depth": st.sampled_from([3, 4]),
    "units": st.sampled_from([2, 5]),
    "query": st.sampled_from([2, 3]),
    "steps": st.sampled_from([1, 3]),
    "masked_by": st.sampled_from(MASKED_BY),
    "memory_in_tape": st.booleans(),
    "seed": st.integers(0, 2**16),
}


@dataclass
class Setting:
    """The NumPy side of a configuration: which steps are real, and every random array."""

    config: Config
    dtype: Any = np.float64
    query_width: int = 0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        c = self.config
        self.rng = np.random.default_rng(c["seed"])
        batch, memory = c["batch"], c["memory"]
        self.lengths = self.rng.integers(1, memory + 1, batch)
        if "Keras" in c["masked_by"] or "mask" in c["masked_by"]:
            self.mask = self.rng.random((batch, memory)) < 0.6
        else:
            self.mask = np.arange(memory) < self.lengths[:, None]
        self.memory = self.normal(batch, memory, c["depth"])
        self.queries = self.normal(c["steps"], batch, self.query_width or c["query"])
        self.noise = self.normal(c["steps"], batch, memory)
        self.alignment_weights = self.normal(c["steps"], batch, memory)
        self.context_weights = self.normal(c["steps"], batch, c["depth"])

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32).astype(self.dtype)

    def weights(self, shape: tuple[int, ...]) -> np.ndarray:
        """A parameter, small enough not to saturate the softmax: where one alignment is 1 but for 1e-6,
        its gradient is a difference of numbers a million times larger, and so is its rounding."""
        fan_in = shape[0] if len(shape) == 2 else 1
        return (self.normal(*shape) / np.sqrt(fan_in)).astype(np.float32).astype(self.dtype)

    @property
    def jax_masking(self) -> dict[str, Any]:
        """What `setup_memory` is given to do the same."""
        how = self.config["masked_by"]
        if how == "nothing" or how in IGNORED_BY_TENSORFLOW:
            return {}
        if "lengths" in how:
            return {"memory_sequence_length": jnp.asarray(self.lengths)}
        return {"memory_mask": jnp.asarray(self.mask)}


def set_up_tf(make: Callable[..., Any], setting: Setting, memory: Any, layout: Layout) -> Any:
    """A TensorFlow mechanism with weights of the setting's and its memory set up, all as asked for."""
    how = setting.config["masked_by"]
    query = tf.zeros(setting.queries.shape[1:], memory.dtype)  # builds what the first call builds
    lengths = tf.constant(setting.lengths, tf.int64 if "int64" in how else tf.int32)
    mask = tf.constant(setting.mask)

    def with_keras_mask(tensor: Any) -> Any:
        tensor = tf.identity(tensor)
        tensor._keras_mask = mask
        return tensor

    if how == "constructor with lengths":
        mechanism = make(memory=memory, memory_sequence_length=lengths)
    elif how == "constructor with Keras mask":
        mechanism = make(memory=with_keras_mask(memory))
    elif how == "constructor with lengths and no memory":
        mechanism = make(memory_sequence_length=lengths)
    else:
        mechanism = make()
    memory_is_set = how in ("constructor with lengths", "constructor with Keras mask")
    if not memory_is_set:
        mechanism.setup_memory(tf.zeros_like(memory))
    mechanism([query, mechanism.initial_state(query.shape[0], memory.dtype)])
    for name, variable in variables_of(mechanism, layout).items():
        if not (memory_is_set and name.startswith("memory_layer")):
            variable.assign(setting.weights(variable.shape))

    if how in ("lengths", "int64 lengths"):
        mechanism.setup_memory(memory, memory_sequence_length=lengths)
    elif how == "mask":
        mechanism.setup_memory(memory, memory_mask=mask)
    elif how == "lengths through __call__":
        mechanism([memory, lengths], setup_memory=True)
    elif how == "mask through __call__":
        mechanism(memory, mask=mask, setup_memory=True)
    elif how == "Keras mask through __call__":
        mechanism(with_keras_mask(memory), setup_memory=True)
    elif how == "Keras mask of setup_memory":
        mechanism.setup_memory(with_keras_mask(memory))
    elif not memory_is_set:
        mechanism.setup_memory(memory)
    return mechanism


def variables_of(holder: Any, layout: Layout) -> dict[str, Any]:
    """The variables of a TensorFlow object, by the layout's names for them."""
    return {path: variable_at(holder, path) for path in layout.variables}


def variable_at(holder: Any, path: str) -> Any:
    """The variable that is held at a path of attributes."""
    for name in path.split("/"):
        named_otherwise = name == "attention_g" and not hasattr(holder, name)
        holder = getattr(holder, "scale_weight" if named_otherwise else name)
    return holder


def mechanism_pair(
    setting: Setting,
    layout: Layout,
    make_tf: Callable[..., Any],
    ours: AttentionMechanism,
    *,
    one_hot: bool = False,
    noisy: bool = False,
    initial_state: bool = True,
) -> Pair:
    """Some steps of one mechanism on both sides, from its initial state or from a random one."""
    c = setting.config
    if c["masked_by"] == "constructor with lengths and no memory":
        ours = ours.clone(memory_sequence_length=jnp.asarray(setting.lengths))
    memory, queries = tf.constant(setting.memory), tf.constant(setting.queries)
    state = setting.normal(c["batch"], c["memory"]) ** 2
    if initial_state:
        state = np.zeros_like(state)
        state[:, 0] = one_hot
    state_tf = tf.constant(state)

    with tf.GradientTape(persistent=True) as tape:
        tape.watch([memory, queries, state_tf])
        if c["memory_in_tape"]:
            mechanism = set_up_tf(make_tf, setting, memory, layout)
    if not c["memory_in_tape"]:
        mechanism = set_up_tf(make_tf, setting, tf.identity(memory), layout)
    if initial_state:
        np.testing.assert_array_equal(mechanism.initial_state(c["batch"], memory.dtype), state)
    with tape:
        now, alignments, contexts = state_tf, [], []
        for query in tf.unstack(queries):
            aligned, now = mechanism([query, now])
            alignments.append(aligned)
            contexts.append(tf.einsum("bm,bmd->bd", aligned, mechanism.values))
        alignments, contexts = tf.stack(alignments), tf.stack(contexts)
        loss = tf.reduce_sum(alignments * setting.alignment_weights)
        loss += tf.reduce_sum(contexts * setting.context_weights)
    variables = variables_of(mechanism, layout)
    *gradients, of_memory, of_queries, of_state = tape.gradient(
        loss, [*variables.values(), memory, queries, state_tf]
    )
    leaves, by_leaf = {}, {}
    if variables:
        leaves = layout.to_leaves({name: variable.numpy() for name, variable in variables.items()})
        by_leaf = layout.gradients_to_leaves(
            {name: numpy_or_none(g) for name, g in zip(variables, gradients, strict=True)}
        )
    by_tf = {
        "alignments": alignments.numpy(),
        "contexts": contexts.numpy(),
        "loss": loss.numpy(),
        "gradient/memory": numpy_or_none(of_memory),
        "gradient/queries": numpy_or_none(of_queries),
        "gradient/initial_state": numpy_or_none(of_state),
        **{f"gradient/{name}": gradient for name, gradient in by_leaf.items()},
    }

    def by_jax(dtype: Any, jitter: float = 0.0) -> dict[str, np.ndarray]:
        def run(params, memory, queries, state):
            return ours.apply({"params": params}, memory, queries, state, method=steps)

        def steps(mechanism, memory, queries, state):
            ready = mechanism.setup_memory(memory, **setting.jax_masking)
            if not c["memory_in_tape"]:
                ready = ready._replace(
                    keys=jax.lax.stop_gradient(ready.keys), values=jax.lax.stop_gradient(ready.values)
                )
            alignments, contexts = [], []
            for t, query in enumerate(queries):
                noise = jnp.asarray(setting.noise[t], dtype) if noisy else None
                aligned, state = mechanism(ready, query, state, noise=noise)
                alignments.append(aligned)
                contexts.append(jnp.einsum("bm,bmd->bd", aligned, ready.values))
            alignments, contexts = jnp.stack(alignments), jnp.stack(contexts)
            loss = jnp.sum(alignments * setting.alignment_weights.astype(dtype))
            loss += jnp.sum(contexts * setting.context_weights.astype(dtype))
            return loss, (alignments, contexts)

        def rounded(x):
            return jnp.asarray(x * (1 + jitter * setting.rng.uniform(-1, 1, np.shape(x))), dtype)

        params = jax.tree.map(rounded, to_params(leaves))
        inputs = [rounded(x) for x in (setting.memory, setting.queries, state)]
        (loss, (alignments, contexts)), gradients = jax.value_and_grad(
            run, argnums=(0, 1, 2, 3), has_aux=True
        )(params, *inputs)
        named = {"alignments": alignments, "contexts": contexts, "loss": loss}
        for name, gradient in zip(("memory", "queries", "initial_state"), gradients[1:], strict=True):
            named[f"gradient/{name}"] = gradient
        named |= named_gradients(gradients[0])
        return {name: np.asarray(array) for name, array in named.items()}

    exact = by_jax(np.float64)
    if setting.dtype == np.float64:
        return Pair(tf=by_tf, jax=exact)
    return Pair(tf=by_tf, jax=exact, noise=float32_noise(by_jax, exact))


def float32_noise(
    by_jax: Callable[..., Mapping[str, np.ndarray]], exact: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The error of float32 arithmetic in each tensor: the largest of four runs, three of them on inputs
    moved within their own rounding. One run alone can be right by chance, above all in a scalar."""
    epsilon = float(np.finfo(np.float32).eps)
    runs = [by_jax(np.float32, jitter) for jitter in (0.0, epsilon, epsilon, epsilon)]
    return {name: np.max([abs(run[name] - exact[name]) for run in runs], axis=0) for name in exact}


def numpy_or_none(tensor: Any) -> np.ndarray | None:
    """The tensor's value; an absent gradient stays None."""
    return None if tensor is None else tf.convert_to_tensor(tensor).numpy()


def to_params(leaves: Mapping[str, np.ndarray], dtype: Any = np.float64) -> dict[str, Any]:
    """Flax's parameters of named leaves."""
    arrays = {name: jnp.asarray(leaf, dtype) for name, leaf in leaves.items()}
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def named_gradients(gradients: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_params`, for gradients."""
    flat = flax.traverse_util.flatten_dict(gradients, sep="/")
    return {f"gradient/{name}": gradient for name, gradient in flat.items()}


@parity(
    "tfa.seq2seq.hardmax",
    configurations=st.fixed_dictionaries(
        {
            "shape": st.sampled_from([(1, 1), (3, 4), (2, 3, 4)]),
            "ties": st.booleans(),
            "seed": st.integers(0, 2**16),
        }
    ),
)
def hardmax_parity(config: Config) -> Pair:
    """Ties take the first; no gradient passes."""
    rng = np.random.default_rng(config["seed"])
    logits, weights = rng.normal(size=(2, *config["shape"]))
    logits = np.round(logits) if config["ties"] else logits
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = tfa.seq2seq.hardmax(x)
        loss = tf.reduce_sum(output * weights)

    def run(x):
        output = hardmax(x)
        return jnp.sum(output * weights), output

    (ours, ours_output), gradient = jax.value_and_grad(run, has_aux=True)(jnp.asarray(logits))
    return Pair(
        tf={"output": output.numpy(), "loss": loss.numpy(), "gradient": tape.gradient(loss, x)},
        jax={"output": ours_output, "loss": ours, "gradient": gradient},
    )


def _remember(score: Any, state: Any, softmax: Callable[[Any], Any]) -> Any:
    """A probability function that looks at the previous alignments."""
    return 0.7 * softmax(score) + 0.3 * state


class _DotProductTF(tfa.seq2seq.AttentionMechanism):
    """The least mechanism that can be made of the base class."""

    def _calculate_attention(self, query, state):
        query = self.query_layer(query) if self.query_layer else query
        alignments = self.probability_fn(tf.einsum("bmu,bu->bm", self.keys, query), state)
        return alignments, alignments


class _DotProduct(AttentionMechanism):
    """The same of our base class."""

    query_layer: nn.Module | None = None
    memory_layer: nn.Module | None = None

    def calculate_score(self, keys, query):
        query = self.query_layer(query) if self.query_layer else query
        return jnp.einsum("bmu,bu->bm", keys, query)


@parity(
    "tfa.seq2seq.AttentionMechanism",
    configurations=st.fixed_dictionaries(
        {**SIZES, "query_layer": st.booleans(), "memory_layer": st.booleans()}
    ),
)
def attention_mechanism_parity(config: Config) -> Pair:
    """A mechanism of one's own, with and without layers, that remembers its previous alignments."""
    units = config["units"] if config["memory_layer"] else config["depth"]
    width = config["query"] if config["query_layer"] else units
    parts = {}
    if config["memory_layer"]:  # a bias would shift every score alike: its gradient is 0 but for rounding
        parts["memory_layer"] = attention_layer(config["depth"], units)
    if config["query_layer"]:
        parts["query_layer"] = dense(width, units)
    layout = join({(name, name): part for name, part in parts.items()})

    biased = {name: name == "query_layer" for name in parts}

    def make(memory=None, memory_sequence_length=None):
        return _DotProductTF(
            memory=memory,
            memory_sequence_length=memory_sequence_length,
            probability_fn=lambda score, state: _remember(score, state, tf.nn.softmax),
            dtype=tf.float64,
            **{name: tf.keras.layers.Dense(units, use_bias=biased[name], dtype=tf.float64) for name in parts},
        )

    ours = _DotProduct(
        probability_fn=lambda score, state: _remember(score, state, jax.nn.softmax),
        **{name: nn.Dense(units, use_bias=biased[name]) for name in parts},
    )
    setting = Setting(config, query_width=width)
    return mechanism_pair(setting, layout, make, ours, initial_state=False)


@parity(
    "tfa.seq2seq.LuongAttention",
    configurations=st.fixed_dictionaries(
        {**SIZES, "scale": st.booleans(), "probability_fn": st.sampled_from(["softmax", "hardmax"])}
    ),
)
def luong_attention_parity(config: Config) -> Pair:
    options = {"scale": config["scale"], "probability_fn": config["probability_fn"]}
    return mechanism_pair(
        Setting(config, query_width=config["units"]),
        luong_attention(config["depth"], config["units"], scale=config["scale"]),
        lambda **given: tfa.seq2seq.LuongAttention(config["units"], dtype=tf.float64, **options, **given),
        LuongAttention(config["units"], **options),
    )


@parity(
    "tfa.seq2seq.BahdanauAttention",
    configurations=st.fixed_dictionaries(
        {**SIZES, "normalize": st.booleans(), "probability_fn": st.sampled_from(["softmax", "hardmax"])}
    ),
)
def bahdanau_attention_parity(config: Config) -> Pair:
    options = {"normalize": config["normalize"], "probability_fn": config["probability_fn"]}
    return mechanism_pair(
        Setting(config),
        bahdanau_attention(config["query"], config["depth"], config["units"], normalize=config["normalize"]),
        lambda **given: tfa.seq2seq.BahdanauAttention(config["units"], dtype=tf.float64, **options, **given),
        BahdanauAttention(config["units"], **options),
    )
