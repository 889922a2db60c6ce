"""The attention wrapper: its state, its loops, bad input, and JAX's transformations."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_models.attention import AttentionMechanism, BahdanauAttention, LuongAttention
from jax_models.attention_state import AttentionWrapperState, join_constants, split_constants
from jax_models.attention_wrapper import AttentionWrapper
from jax_models.cells import BasicLSTMCell
from jax_models.monotonic import BahdanauMonotonicAttention, LuongMonotonicAttention
from tests.jax_models.refusal import refused

BATCH, MEMORY, DEPTH, UNITS, STEPS, FEATURES = 3, 4, 5, 2, 4, 1

LENGTHS = jnp.array([1, 3, 4])


class Decode(nn.Module):
    """What a decoder does with a wrapper, as a loop in Python or as `nn.scan`."""

    wrapper: AttentionWrapper
    scanned: bool = False
    checkpointed: bool = False

    def __call__(self, memory, inputs, noise=None, maximum_steps=STEPS):
        memories = self.wrapper.setup_memory(memory, memory_sequence_length=LENGTHS[: memory.shape[0]])
        if not self.wrapper.alignment_history:
            maximum_steps = None
        state = self.wrapper.zero_state(
            memory.shape[0], memory.dtype, memories=memories, maximum_steps=maximum_steps, noise=noise
        )

        def step(wrapper, state, now):
            return wrapper(state, now)

        if not self.scanned:
            outputs = []
            for now in inputs:
                state, output = self.wrapper(state, now)
                outputs.append(output)
            return jnp.stack(outputs), state
        if self.checkpointed:
            step = nn.remat(step, prevent_cse=False)
        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        state, outputs = scan(self.wrapper, state, inputs)
        return outputs, state


def make_arrays() -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(jax.random.key(0))
    return (
        jax.random.normal(first, (BATCH, MEMORY, DEPTH)),
        jax.random.normal(second, (STEPS, BATCH, FEATURES)),
    )


def make_wrapper(mechanism: Any = None, **options: Any) -> AttentionWrapper:
    return AttentionWrapper(
        BasicLSTMCell(UNITS), LuongAttention(UNITS) if mechanism is None else mechanism, **options
    )


def run(wrapper: AttentionWrapper, *, params: Any = None, noise: Any = None, **how: Any) -> tuple:
    """Parameters, outputs and final state."""
    memory, inputs = make_arrays()
    if params is None:
        params = Decode(wrapper).init(jax.random.key(1), memory, inputs, noise)
    return params, *Decode(wrapper, **how).apply(params, memory, inputs, noise)


def assert_same(ours: Any, theirs: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


WRAPPERS = [
    make_wrapper(),
    make_wrapper(attention_layer_size=3, alignment_history=True),
    make_wrapper(BahdanauAttention(3, normalize=True), output_attention=False),
    make_wrapper(
        (LuongMonotonicAttention(UNITS, mode="recursive"), BahdanauMonotonicAttention(3)),
        attention_layer=(nn.Dense(3), nn.Dense(2)),
        alignment_history=True,
    ),
]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_scan_is_a_loop(wrapper: AttentionWrapper) -> None:
    params, outputs, state = run(wrapper)
    assert state.time == STEPS
    assert_same(run(wrapper, params=params, scanned=True)[1:], (outputs, state))
    memory, inputs = make_arrays()
    made = Decode(wrapper, scanned=True).init(jax.random.key(1), memory, inputs)
    assert jax.tree.structure(made) == jax.tree.structure(params)

    own = {"params": params["params"]["wrapper"]}

    @jax.jit
    def by_lax(own, inputs):
        memories = wrapper.apply(own, memory, memory_sequence_length=LENGTHS, method="setup_memory")
        steps = STEPS if wrapper.alignment_history else None
        first = wrapper.zero_state(BATCH, memory.dtype, memories=memories, maximum_steps=steps)
        return jax.lax.scan(lambda state, now: wrapper.apply(own, state, now), first, inputs)

    assert_same(by_lax(own, inputs), (state, outputs))


@pytest.mark.parametrize("wrapper", [WRAPPERS[1], WRAPPERS[3]])
def test_gradients_through_jit_and_checkpoint_are_the_same(wrapper: AttentionWrapper) -> None:
    memory, inputs = make_arrays()
    params = run(wrapper)[0]

    def gradients(**how):
        def loss(params, memory):
            outputs, state = Decode(wrapper, **how).apply(params, memory, inputs)
            return jnp.sum(outputs**2) + jnp.sum(state.attention)

        return jax.grad(loss, argnums=(0, 1))

    plain = gradients()(params, memory)
    assert_same(jax.jit(gradients(scanned=True))(params, memory), plain)
    assert_same(jax.jit(gradients(scanned=True, checkpointed=True))(params, memory), plain)
    assert all(leaf.any() for leaf in jax.tree.leaves(plain))


def test_vmap_over_rows() -> None:
    wrapper = make_wrapper(attention_layer_size=3)
    params, outputs, _ = run(wrapper)
    memory, inputs = make_arrays()

    def row(memory, inputs):
        return Decode(wrapper).apply(params, memory[None], inputs[:, None])[0][:, 0]

    with_one_length = jax.vmap(row, in_axes=(0, 1), out_axes=1)(memory, inputs)
    assert with_one_length.shape == outputs.shape
    np.testing.assert_allclose(with_one_length[:, 0], outputs[:, 0], atol=1e-6)


@pytest.mark.parametrize("lifted", [False, True])
def test_a_scan_over_the_moving_parts_keeps_one_copy_of_the_memory(lifted: bool) -> None:
    wrapper, (memory, inputs) = make_wrapper(), make_arrays()
    params, outputs, _ = run(wrapper)
    own = {"params": params["params"]["wrapper"]}

    def run_lifted(wrapper, moving, constants):
        def step(wrapper, moving, constants, now):
            state, output = wrapper(join_constants(moving, constants), now)
            return split_constants(state)[0], output

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=(nn.broadcast, 0),
        )
        return scan(wrapper, moving, constants, inputs)

    def run_plain(own, moving, constants):
        def step(moving, now):
            state, output = wrapper.apply(own, join_constants(moving, constants), now)
            return split_constants(state)[0], output

        return jax.lax.scan(step, moving, inputs)

    def decode(own):
        memories = wrapper.apply(own, memory, memory_sequence_length=LENGTHS, method="setup_memory")
        state = wrapper.zero_state(BATCH, memory.dtype, memories=memories)
        moving, constants = split_constants(state)
        if lifted:
            return wrapper.apply(own, moving, constants, method=run_lifted)
        return run_plain(own, moving, constants)

    assert_same(decode(own)[1], outputs)
    text = str(jax.make_jaxpr(jax.grad(lambda own: jnp.sum(decode(own)[1])))(own))
    assert f"f32[{BATCH},{MEMORY},{DEPTH}]" in text
    assert f"f32[{STEPS},{BATCH},{MEMORY},{DEPTH}]" not in text
    assert f"f32[{STEPS},{BATCH},{MEMORY},{UNITS}]" not in text


def test_split_and_join_are_inverse_in_any_tree() -> None:
    state = run(make_wrapper([LuongAttention(UNITS)] * 2, alignment_history=True))[2]
    tree = {"one": state, "other": (jnp.ones(2), state._replace(time=state.time + 1))}
    moving, constants = split_constants(tree)
    assert len(constants) == 2
    assert len(jax.tree.leaves(moving)) < len(jax.tree.leaves(tree))
    assert moving["one"].memories == ()
    joined = join_constants(moving, constants)
    assert jax.tree.structure(joined) == jax.tree.structure(tree)
    assert_same(joined, tree)


def test_the_history_holds_every_step_and_drops_what_does_not_fit() -> None:
    wrapper = make_wrapper(alignment_history=True)
    params, _, state = run(wrapper)
    assert state.alignment_history.shape == (STEPS, BATCH, MEMORY)
    np.testing.assert_allclose(state.alignment_history.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(state.alignment_history[-1], state.alignments)

    memory, inputs = make_arrays()
    long = Decode(wrapper).apply(params, memory, inputs, None, STEPS + 2)[1].alignment_history
    assert not long[STEPS:].any()
    short = Decode(wrapper).apply(params, memory, inputs, None, STEPS - 2)[1].alignment_history
    for history in (long[:STEPS], jnp.concatenate([short, state.alignment_history[-2:]])):
        np.testing.assert_allclose(history, state.alignment_history, rtol=1e-6)


def test_without_a_history_there_is_none() -> None:
    assert run(make_wrapper())[2].alignment_history == ()
    assert run(make_wrapper([LuongAttention(UNITS)] * 2))[2].alignment_history == ((), ())


def test_noise_comes_from_an_array_or_from_a_key() -> None:
    wrapper = make_wrapper(BahdanauMonotonicAttention(3, sigmoid_noise=2.0))
    key = jax.random.key(2)
    params, drawn, _ = run(wrapper, noise=key)
    noise = [jax.random.normal(jax.random.fold_in(key, t), (BATCH, MEMORY)) for t in range(STEPS)]
    assert_same(run(wrapper, params=params, noise=jnp.stack(noise))[1], drawn)
    assert_same(run(wrapper, params=params, noise=key, scanned=True)[1], drawn)
    assert np.abs(run(wrapper, params=params, noise=jax.random.key(3))[1] - drawn).max() > 1e-3
    outputs = run(wrapper, params=params, noise=jnp.stack(noise[:-1]))[1]
    assert np.isfinite(outputs[:-1]).all()
    assert np.isnan(outputs[-1]).all()
    with refused("neither noise nor a key", ValueError):
        run(wrapper, params=params)

    two = make_wrapper([LuongAttention(UNITS), BahdanauMonotonicAttention(3, sigmoid_noise=2.0)])
    assert np.isfinite(run(two, noise=(None, jax.random.PRNGKey(0)))[1]).all()


def test_one_mechanism_and_a_sequence_of_one_agree() -> None:
    params, outputs, state = run(make_wrapper(attention_layer_size=3, alignment_history=True))
    own = params["params"]["wrapper"]
    assert set(own) == {"cell", "attention_mechanism", "attention_layer"}
    listed = {name if name == "cell" else f"{name}_0": leaves for name, leaves in own.items()}
    wrapper = make_wrapper([LuongAttention(UNITS)], attention_layer_size=[3], alignment_history=True)
    _, theirs, their_state = run(wrapper, params={"params": {"wrapper": listed}})
    assert_same(theirs, outputs)
    assert_same(their_state.alignment_history, (state.alignment_history,))
    assert_same(their_state.memories, (state.memories,))


def test_wrappers_share_a_mechanism_but_not_a_layer() -> None:
    class Two(nn.Module):
        def setup(self) -> None:
            self.mechanism = LuongAttention(UNITS)
            self.first = make_wrapper(self.mechanism, attention_layer_size=3)
            self.second = make_wrapper(self.mechanism, attention_layer_size=3)

        def __call__(self, memory, inputs):
            memories = self.first.setup_memory(memory)
            outputs = []
            for wrapper in (self.first, self.second):
                state = wrapper.zero_state(BATCH, memory.dtype, memories=memories)
                outputs.append(wrapper(state, inputs)[1])
            return outputs

    memory, inputs = make_arrays()
    params = Two().init(jax.random.key(0), memory, inputs[0])["params"]
    assert set(params) == {"mechanism", "first", "second"}
    assert set(params["first"]) == set(params["second"]) == {"cell", "attention_layer"}


def test_input_feeding_and_the_output() -> None:
    params, outputs, state = run(make_wrapper(output_attention=False))
    np.testing.assert_array_equal(outputs[-1], state.cell_state.h)
    _, attended, same = run(make_wrapper(), params=params)
    np.testing.assert_array_equal(attended[-1], same.attention)
    assert_same(same, state)
    kernel = params["params"]["wrapper"]["cell"]["kernel"]
    assert kernel.shape == (FEATURES + DEPTH, 4 * UNITS)
    unfed = make_wrapper(cell_input_fn=lambda inputs, attention: inputs)
    assert run(unfed)[0]["params"]["wrapper"]["cell"]["kernel"].shape == (FEATURES, 4 * UNITS)


def test_output_size() -> None:
    assert make_wrapper(attention_layer_size=3).output_size == 3
    assert make_wrapper([LuongAttention(UNITS)] * 2, attention_layer_size=[3, 4]).output_size == 7
    assert make_wrapper(attention_layer=nn.Dense(4)).output_size == 4
    assert make_wrapper(output_attention=False).output_size == UNITS
    with refused("as wide as the memory", ValueError):
        _ = make_wrapper().output_size


def test_map_rows_touches_what_a_step_changes() -> None:
    state = run(make_wrapper(alignment_history=True))[2]
    doubled = state.map_rows(lambda new, old: new + old, state)
    for name in ("cell_state", "attention", "alignments", "attention_state"):
        assert_same(getattr(doubled, name), jax.tree.map(lambda x: 2 * x, getattr(state, name)))
    for name in ("time", "alignment_history", "memories", "noise"):
        assert getattr(doubled, name) is getattr(state, name)
    swapped = state.map_rows(lambda x: x[jnp.array([2, 1, 0])])
    np.testing.assert_array_equal(swapped.attention, state.attention[::-1])


def test_clone_refuses_other_shapes() -> None:
    state = run(make_wrapper())[2]
    assert state.clone(attention=state.attention * 0).attention.sum() == 0
    with refused("cell_state has the shapes", ValueError):
        state.clone(cell_state=state.cell_state.h)
    with refused("attention has the shapes", ValueError):
        state.clone(attention=state.attention[:1])


def make_state(wrapper: AttentionWrapper, *, batch: int = BATCH, **options: Any) -> AttentionWrapperState:
    memory, _ = make_arrays()
    own = {"params": run(wrapper)[0]["params"]["wrapper"]}
    memories = wrapper.apply(own, memory, method="setup_memory")
    return wrapper.zero_state(batch, memory.dtype, memories=memories, **options)


def test_bad_input_is_refused() -> None:
    wrapper = make_wrapper()
    with refused("tile_batch", ValueError):
        make_state(wrapper, batch=2 * BATCH)
    state = make_state(wrapper)
    with refused("maximum_steps", ValueError):
        make_wrapper(alignment_history=True).initial_state(state.cell_state, state.memories)
    with refused("1 entries for 2", ValueError):
        make_wrapper([LuongAttention(UNITS)] * 2).initial_state(state.cell_state, state.memories)
    with refused("noise has 2 entries", ValueError):
        wrapper.initial_state(state.cell_state, state.memories, noise=(None, None))
    with refused("memory_mask has 1 entries", ValueError):
        run(make_wrapper([LuongAttention(UNITS)] * 2))  # which is fine
        two = make_wrapper([LuongAttention(UNITS)] * 2)
        two.init(jax.random.key(0), make_arrays()[0], memory_mask=[None], method="setup_memory")
    with refused("Maybe you passed the cell's state", TypeError):
        own = {"params": run(wrapper)[0]["params"]["wrapper"]}
        wrapper.apply(own, state.cell_state, make_arrays()[1][0])


@pytest.mark.parametrize(
    ("mechanism", "options", "error"),
    [
        (LuongAttention(UNITS), {"attention_layer_size": 3, "attention_layer": nn.Dense(3)}, ValueError),
        ([LuongAttention(UNITS)] * 2, {"attention_layer_size": 3}, ValueError),
        (LuongAttention(UNITS), {"attention_layer_size": [3, 3]}, ValueError),
        ([LuongAttention(UNITS)] * 2, {"attention_layer": [nn.Dense(3)]}, ValueError),
        (nn.Dense(3), {}, TypeError),
        (LuongAttention(UNITS), {"attention_layer": nn.LayerNorm()}, TypeError),
    ],
)
def test_bad_options_are_refused_at_once(
    mechanism: AttentionMechanism, options: dict, error: type[Exception]
) -> None:
    with refused("attention", error):
        make_wrapper(mechanism, **options)
