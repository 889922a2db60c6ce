"""Each of TensorFlow's optimizers against its counterpart in optax, over 100 steps in float64."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.errors import UsageError
from oracle.trajectory import BOUND, compare_trajectories, mirror_optimizer
from tests.trajectories.__main__ import measure
from tests.trajectories.subjects import FLOAT32_SCHEDULES, STEPS, SUBJECTS, draw_gradients, draw_initial

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.slow]


@pytest.mark.parametrize("optimizer", SUBJECTS, ids=lambda each: each.describe())
def test_a_hundred_steps_agree(optimizer):
    comparison = measure(optimizer)
    assert len(comparison.rows) == STEPS
    assert comparison.matches, comparison.divergence
    assert comparison.needed < BOUND


def _wrong():
    try:
        from tests.trajectories.wrong_variants import WRONG
    except ImportError:  # Without JAX.
        return ()
    return WRONG


@pytest.mark.parametrize(
    "optimizer, what, build", _wrong(), ids=lambda each: each if isinstance(each, str) else None
)
def test_a_wrong_formula_diverges_at_a_named_step(optimizer, what, build):
    comparison = measure(optimizer, build)
    assert not comparison.matches
    assert 1 <= comparison.divergence.step <= STEPS
    assert comparison.divergence.name in (
        "parameter/kernel",
        "parameter/embedding",
        "parameter/bias",
    )


@pytest.mark.parametrize("optimizer", FLOAT32_SCHEDULES, ids=lambda each: each.describe())
def test_a_schedule_in_float32_differs_by_roundings_of_float32(optimizer):
    comparison = measure(optimizer)
    # Of a rate that has fallen to almost nothing, a rounding of the first rate is a large part.
    assert comparison.rows[-1].by_kind["parameter"] < 1e-6


def test_a_fault_of_tensorflow_at_one_step_is_named_at_that_step(monkeypatch):
    from tf_models.optimizers import LiveOptimizer

    apply, calls = LiveOptimizer.apply, []

    def faulty(self, gradients):
        apply(self, gradients)
        calls.append(None)
        if len(calls) == 37:
            self.variables["bias"].assign_add([0.0, 1e-9, 0.0, 0.0])

    monkeypatch.setattr(LiveOptimizer, "apply", faulty)
    comparison = measure(SUBJECTS[0])
    assert (comparison.divergence.step, comparison.divergence.name) == (37, "parameter/bias")
    assert comparison.divergence.index == (1,)


def test_a_live_optimizer_is_mirrored_from_its_own_configuration():
    from oracle.frameworks import import_tensorflow, import_tfa, precise_jax
    from oracle.optimizer import Optimizer, Schedule
    from tf_models.optimizers import describe_optimizer

    tf, tfa = import_tensorflow(), import_tfa()
    cosine = tf.keras.optimizers.schedules.CosineDecay(0.25, 50)
    live = {
        "keras.Adam": tf.keras.optimizers.Adam(0.25, epsilon=1e-3, clipnorm=1.0, amsgrad=True),
        "keras.SGD": tf.keras.optimizers.SGD(cosine, momentum=0.5),
        "legacy.RMSprop": tf.keras.optimizers.legacy.RMSprop(0.25, momentum=0.5, centered=True),
        "tf1.RMSProp": tf.compat.v1.train.RMSPropOptimizer(0.25, decay=0.75, momentum=0.5),
        "tf1.Ftrl": tf.compat.v1.train.FtrlOptimizer(0.25, l1_regularization_strength=0.5),
        "tfa.LAMB": tfa.optimizers.LAMB(0.25, weight_decay=0.5),
        "tfa.AdamW": tfa.optimizers.AdamW(0.5, learning_rate=0.25),
        "tfa.Lookahead": tfa.optimizers.Lookahead(tf.keras.optimizers.legacy.SGD(0.25, 0.5), sync_period=3),
    }
    described = {name: describe_optimizer(optimizer) for name, optimizer in live.items()}
    assert {name: each.name for name, each in described.items()} == {name: name for name in live}
    assert described["keras.Adam"].arguments == {
        "learning_rate": 0.25,
        "epsilon": 1e-3,
        "clipnorm": 1.0,
        "amsgrad": True,
    }
    assert described["keras.SGD"].schedule == Schedule(
        "CosineDecay",
        {"initial_learning_rate": 0.25, "decay_steps": 50, "alpha": 0.0, "warmup_steps": 0},
        "float32",
    )
    assert described["tfa.Lookahead"].inner == Optimizer(
        "legacy.SGD", {"learning_rate": 0.25, "momentum": 0.5}, floatx="float32"
    )
    initial, gradients = draw_initial(), draw_gradients(steps=8)
    for name, optimizer in live.items():
        from oracle.steps.trajectory import step_optimizer as step_oracle
        from tf_models.trajectory import step_optimizer as step_port

        if name == "keras.SGD":
            continue
        comparison = compare_trajectories(
            step_port(optimizer, initial, gradients),
            step_oracle(described[name], initial, gradients),
            initial=initial,
        )
        assert comparison.matches, comparison.divergence
        # What it has done does not change what it is.
        assert describe_optimizer(optimizer).rounded() == described[name].rounded()
    with precise_jax():
        assert mirror_optimizer(live["keras.Adam"]).init({"bias": np.zeros(3)}) is not None


def test_an_optimizer_without_a_counterpart_is_refused_by_name():
    from oracle.frameworks import import_tensorflow, import_tfa

    tf, tfa = import_tensorflow(), import_tfa()

    class Mine(tf.keras.optimizers.Adam):
        pass

    for optimizer, named in (
        (Mine(), "Mine"),
        (tf.keras.optimizers.Lion(), "Lion"),
        (tfa.optimizers.NovoGrad(), "NovoGrad"),
        (tfa.optimizers.LAMB(exclude_from_weight_decay=["bias"]), "exclude_from_weight_decay"),
        (object(), "object"),
    ):
        with pytest.raises(UsageError, match=named):
            mirror_optimizer(optimizer)


def test_the_defaults_are_tensorflows():
    """What `oracle.optimizer` says of the arguments of each class is what the class says."""
    import inspect

    from oracle.frameworks import import_tensorflow
    from oracle.optimizer import DEFAULTS, SCHEDULES
    from tf_models.optimizers import _find_type

    tf = import_tensorflow()
    ours = {("tf1", "learning_rate"), ("tf1", "momentum"), ("tfa", "weight_decay"), ("tfa", "optimizer")}
    for whole, defaults in DEFAULTS.items():
        namespace, _, name = whole.partition(".")
        parameters = inspect.signature(inspect.unwrap(_find_type(namespace, name).__init__)).parameters
        for argument, default in defaults.items():
            if argument in ("decay", "clipnorm", "clipvalue", "global_clipnorm") and namespace in (
                "legacy",
                "tfa",
            ):
                continue
            theirs = parameters[argument].default
            if theirs is inspect.Parameter.empty:
                assert (namespace, argument) in ours, (whole, argument)
            else:
                assert theirs == default or (theirs is None and default == 0.0), (whole, argument, theirs)
    for name, defaults in SCHEDULES.items():
        parameters = inspect.signature(getattr(tf.keras.optimizers.schedules, name).__init__).parameters
        assert parameters.keys() - {"self", "name"} == defaults.keys()


def test_keras_adam_casts_its_betas_by_way_of_float32():
    """The surprise that the powers of the betas are of float32 betas, though all else is float64."""
    from oracle.frameworks import import_tensorflow

    tf = import_tensorflow()
    assert float(tf.cast(0.9, tf.float64)) == float(np.float32(0.9)) != 0.9


def test_lookahead_drops_the_clipping_of_what_it_wraps():
    from oracle.frameworks import import_tensorflow, import_tfa

    tf, tfa = import_tensorflow(), import_tfa()
    variable = tf.Variable([1.0], dtype=tf.float64)
    within = tf.keras.optimizers.legacy.SGD(1.0, clipnorm=0.5)
    tfa.optimizers.Lookahead(within).apply_gradients([(tf.constant([4.0], tf.float64), variable)])
    assert float(variable[0]) == -3.0


def test_lookahead_of_plain_sgd_cannot_apply_slices():
    from oracle.frameworks import import_tensorflow, import_tfa

    tf, tfa = import_tensorflow(), import_tfa()
    variable = tf.Variable([[1.0], [2.0]], dtype=tf.float64)
    slices = tf.IndexedSlices(tf.constant([[1.0]], tf.float64), tf.constant([0]), tf.constant([2, 1]))
    with pytest.raises(KeyError):
        tfa.optimizers.Lookahead(tf.keras.optimizers.legacy.SGD(1.0)).apply_gradients([(slices, variable)])


def test_tf1_adam_in_a_session_is_that_in_eager_mode():
    """So that the trajectories, which are computed eagerly, speak of v1 graphs too."""
    from oracle.frameworks import import_tensorflow
    from oracle.optimizer import Optimizer
    from tf_models.trajectory import step_optimizer

    v1 = import_tensorflow().compat.v1
    initial, gradients = draw_initial(), draw_gradients(steps=10)
    kernels = [each["kernel"] for each in gradients]
    eager = list(
        step_optimizer(Optimizer("tf1.Adam"), {"kernel": initial["kernel"]}, [{"kernel": g} for g in kernels])
    )
    with v1.Graph().as_default():
        variable = v1.get_variable("kernel", initializer=initial["kernel"], use_resource=True)
        gradient = v1.placeholder(variable.dtype, variable.shape)
        optimizer = v1.train.AdamOptimizer()
        step = optimizer.apply_gradients([(gradient, variable)])
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for each in kernels:
                session.run(step, {gradient: each})
            found, power = session.run([variable, optimizer._get_beta_accumulators()[0]])
    assert power.dtype == np.float32
    assert power == eager[-1].tensors["slot/beta1_power"]
    np.testing.assert_allclose(found, eager[-1].tensors["parameter/kernel"], rtol=1e-14)
