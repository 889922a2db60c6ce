"""Why a port trains otherwise: TensorFlow's own optimizers, made or driven wrongly, and formulas by hand."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest

from oracle.causes.cause import CAUSES
from oracle.errors import UsageError
from oracle.optimizer import Optimizer, Schedule
from oracle.trajectory import Slices, Step, compare_trajectories
from tests.trajectories.subjects import draw_gradients, draw_initial

INITIAL = draw_initial()
STEPS = 5
MOMENTUM = {"momentum": 0.9, "learning_rate": 0.05}
POINTS = Schedule("PiecewiseConstantDecay", {"boundaries": (2, 4), "values": (0.1, 0.03, 0.01)})

EARLY = Schedule("PiecewiseConstantDecay", {**POINTS.arguments, "boundaries": (1, 3)})


def attach(steps, gradients):
    return [dataclasses.replace(step, gradients=each) for step, each in zip(steps, gradients, strict=True)]


def explain(port, meant, **options):
    from oracle.explain_trajectory import explain_steps

    return explain_steps(port, optimizer=meant, initial=INITIAL, **options)


def train_tensorflow(optimizer, *, steps=STEPS):
    from tf_models.trajectory import step_optimizer

    gradients = draw_gradients(steps=steps)
    return attach(step_optimizer(optimizer, INITIAL, gradients), gradients)


FAULTS = {
    "another default epsilon": ("keras.Adam", {}, "keras.Adam", {"epsilon": 1e-8}, "C801", "is 1e-08, not 1e-07"),
    "an odd epsilon": ("legacy.RMSprop", {}, "legacy.RMSprop", {"epsilon": 3.7e-5}, "C801", "3.7e-05"),
    "TF1's Adam": ("tf1.Adam", {}, "keras.Adam", {}, "C814", "keras.Adam()"),
    "the powers in float32": ("tf1.Adam", {}, "legacy.Adam", {"epsilon": 1e-8}, "C803", "float32"),
    "the rate times ten": ("keras.Adam", {}, "keras.Adam", {"learning_rate": 0.01}, "C804", "is 10 times"),
    "an odd rate": ("tf1.RMSProp", {}, "tf1.RMSProp", {"learning_rate": 0.00123}, "C804", "1.23 times"),
    "up the gradient": ("keras.SGD", {}, "keras.SGD", {"learning_rate": -0.01}, "C804", "is -1 times"),
    "a beta": ("keras.Adam", {}, "keras.Adam", {"beta_2": 0.99}, "C806", "beta_2 is 0.99, not 0.999"),
    "no momentum": ("keras.SGD", MOMENTUM, "keras.SGD", {"learning_rate": 0.05}, "C806", "momentum is 0, not 0.9"),
    "an odd momentum": ("tf1.Momentum", {}, "tf1.Momentum", {"momentum": 0.83}, "C806", "is 0.83, not 0.9"),
    "rho": ("keras.RMSprop", {}, "keras.RMSprop", {"rho": 0.99}, "C806", "rho is 0.99, not 0.9"),
    "Nesterov's": ("keras.SGD", MOMENTUM, "keras.SGD", {**MOMENTUM, "nesterov": True}, "C807", "is on"),
    "no decay": ("keras.AdamW", {}, "keras.AdamW", {"weight_decay": 0.0}, "C808", "they do not"),
    "decay twice": ("tfa.AdamW", {}, "tfa.AdamW", {"weight_decay": 2e-4}, "C808", "twice as fast"),
    "an odd decay": ("keras.Adam", {}, "keras.Adam", {"weight_decay": 0.07}, "C808", "weight_decay is 0.07"),
    "AMSGrad": ("legacy.Adam", {}, "legacy.Adam", {"amsgrad": True}, "C809", "is on"),
    "centered": ("keras.RMSprop", {"centered": True}, "keras.RMSprop", {}, "C810", "not centered"),
    "clipped by another norm": (
        "keras.SGD", {"global_clipnorm": 0.3}, "keras.SGD", {"clipnorm": 0.3}, "C812", "by clipnorm=0.3"
    ),
    "not clipped": ("keras.Adam", {"clipvalue": 0.2}, "keras.Adam", {}, "C812", "is not applied"),
    "clipped at an odd value": ("legacy.SGD", {}, "legacy.SGD", {"clipvalue": 0.37}, "C812", "clipvalue is 0.37"),
    "lazy moments": ("legacy.Adam", {}, "tfa.LazyAdam", {}, "C813", "left as they are"),
    "Keras' new RMSprop": ("legacy.RMSprop", {}, "keras.RMSprop", {}, "C814", "keras.RMSprop()"),
    "another optimizer": ("keras.Adam", {}, "keras.RMSprop", {}, "C818", "keras.RMSprop()"),
    "where the sums begin": (
        "keras.Adagrad", {}, "keras.Adagrad", {"initial_accumulator_value": 0.25}, "C820", "is 0.25, not 0.1"
    ),
}  # fmt: skip
"""What was meant, what TensorFlow trains by, the cause, and what must be said."""


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_optimizer_of_tensorflows_is_named(fault):
    meant, meant_arguments, name, arguments, code, said = FAULTS[fault]
    found = explain(train_tensorflow(Optimizer(name, arguments)), Optimizer(meant, meant_arguments))
    assert (found.kind, found.best.codes) == ("explained", (code,)), found.lines
    assert said in found.lines[0]
    assert found.best.distance < 1e-10
    assert found.best.matching == found.best.total
    assert found.lines[-1] == f"See docs/causes/{code}.md."


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.parametrize(
    "schedule, momentum, name, code, said",
    [
        (None, 0.0, "keras.SGD", "C805", "stays at 0.1"),
        (EARLY, 0.0, "keras.SGD", "C805", "a step early"),
        (POINTS, 0.9, "tf1.Momentum", "C811", "lr * v"),
    ],
)  # fmt: skip
def test_a_rate_that_changes_otherwise_is_named(schedule, momentum, name, code, said):
    own = {"momentum": momentum} if momentum else {}
    rate = {} if schedule else {"learning_rate": 0.1}
    port = train_tensorflow(Optimizer(name, {**own, **rate}, schedule=schedule), steps=6)
    if name == "tf1.Momentum":  # What rows do is another cause: it is left out.
        port = drop_slices(port)
    found = explain(port, Optimizer("keras.SGD", own, schedule=POINTS))
    assert (found.kind, found.best.codes) == ("explained", (code,)), found.lines
    assert said in found.lines[0]


def drop_slices(port):
    """The same steps without what is `IndexedSlices`."""
    kept = []
    for step in port:
        tensors = {name: array for name, array in step.tensors.items() if "embedding" not in name}
        gradients = {name: each for name, each in step.gradients.items() if not isinstance(each, Slices)}
        kept.append(dataclasses.replace(step, tensors=tensors, gradients=gradients))
    return kept


def train_by_hand(optimizer, apply, *, steps=STEPS):
    """TensorFlow's optimizer in a loop of one's own: `apply(make, variables, gradients, step)`."""
    import tensorflow as tf

    from tf_models.optimizers import build_optimizer
    from tf_models.trajectory import _to_gradient

    gradients = draw_gradients(steps=steps)
    variables = {name: tf.Variable(array, dtype=tf.float64) for name, array in INITIAL.items()}
    make = functools.partial(build_optimizer, optimizer, variables)
    live = make()
    made = []
    for number, each in enumerate(gradients):
        given = {name: _to_gradient(gradient, variables[name]) for name, gradient in each.items()}
        live = apply(live, make, variables, given, number + 1) or live
        tensors = {f"parameter/{name}": np.array(variable.numpy()) for name, variable in variables.items()}
        made.append(Step(number + 1, None, 1.0, tensors, each))
    return made


def remake(live, make, variables, gradients, step):
    live = make()
    live.apply(gradients)
    return live


def clip_all(live, make, variables, gradients, step):
    import tensorflow as tf

    clipped, _ = tf.clip_by_global_norm(list(gradients.values()), 0.25)
    live.apply(dict(zip(gradients, clipped, strict=True)))


def add_l2(live, make, variables, gradients, step):
    import tensorflow as tf

    live.apply({name: tf.convert_to_tensor(g) + 0.02 * variables[name] for name, g in gradients.items()})


def make_dense(live, make, variables, gradients, step):
    import tensorflow as tf

    live.apply({name: tf.convert_to_tensor(gradient) for name, gradient in gradients.items()})


def apply_twice(live, make, variables, gradients, step):
    live.apply(gradients)
    live.apply(gradients)


def restore_at_four(live, make, variables, gradients, step):
    if step == 4:
        for name, array in INITIAL.items():
            variables[name].assign(array)
    live.apply(gradients)


class Gather:
    """The mean of three steps' gradients, as code for large batches has it."""

    def __init__(self):
        self.held = []

    def __call__(self, live, make, variables, gradients, step):
        import tensorflow as tf

        self.held.append({name: tf.convert_to_tensor(gradient) for name, gradient in gradients.items()})
        if step % 3 == 0:
            live.apply({name: tf.add_n([each[name] for each in self.held]) / 3 for name in gradients})
            self.held.clear()


def write_adam(*, corrected):
    """Adam as it is written by hand: epsilon after the correction, or no correction."""
    slots = {}

    def apply(live, make, variables, gradients, step):
        import tensorflow as tf

        for name, gradient in gradients.items():
            g = tf.convert_to_tensor(gradient)
            m, v = slots.get(name, (tf.zeros_like(g), tf.zeros_like(g)))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            slots[name] = m, v
            if corrected:
                m, v = m / (1 - 0.9**step), v / (1 - 0.999**step)
            variables[name].assign_sub(0.001 * m / (tf.sqrt(v) + 1e-7))

    return apply


LOOPS = {
    "made anew at each step": ("keras.Adam", remake, "C816", "anew at every step"),
    "clipped outside": ("keras.SGD", clip_all, "C812", "global_clipnorm is 0.25, where none was meant"),
    "L2 in the gradients": ("legacy.RMSprop", add_l2, "C808", "0.02 * p"),
    "dense": ("tf1.Momentum", make_dense, "C813", "as if their gradient were zero"),
    "twice": ("keras.Adam", apply_twice, "C816", "every step is applied twice"),
    "the first weights again": ("keras.Adam", restore_at_four, "C816", "first weights are back at step 4"),
    "gathered": ("keras.Adam", Gather(), "C815", "step number 3 alone"),
    "epsilon by hand": ("keras.Adam", write_adam(corrected=True), "C802", "after the correction"),
    "no correction": ("keras.Adam", write_adam(corrected=False), "C803", "it is not"),
}


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.parametrize("fault", LOOPS)
def test_a_wrong_loop_around_the_optimizer_is_named(fault):
    name, apply, code, said = LOOPS[fault]
    found = explain(train_by_hand(Optimizer(name), apply), Optimizer(name))
    assert (found.kind, found.best.codes) == ("explained", (code,)), found.lines
    assert said in found.lines[0]


@pytest.mark.tf
@pytest.mark.jax
def test_two_faults_are_named_together():
    wrong = Optimizer("keras.SGD", {**MOMENTUM, "nesterov": True, "learning_rate": 0.02})
    found = explain(train_tensorflow(wrong, steps=4), Optimizer("keras.SGD", MOMENTUM))
    assert found.kind == "explained", found.lines
    assert set(found.best.codes) == {"C804", "C807"}, found.lines
    assert found.best.settings["factor"] == pytest.approx(0.4)
    assert found.lines[-1].count("docs/causes/") == 2


@pytest.mark.tf
@pytest.mark.jax
def test_a_right_optimizer_is_said_to_be_right():
    optimizer = Optimizer("keras.Adam")
    port = train_tensorflow(optimizer, steps=4)
    found = explain(port, optimizer)
    assert (found.kind, found.best.codes, found.tried) == ("explained", ("C821",), 1)
    assert found.lines[0].startswith("The optimizer is right: driven by the port's own gradients")


@pytest.mark.jax
def test_noise_is_not_explained():
    generator = np.random.default_rng(3)
    port = []
    for step in train_oracle(Optimizer("legacy.SGD"), steps=3):
        noisy = {
            name: array * (1 + 1e-6 * generator.standard_normal(array.shape))
            for name, array in step.tensors.items()
        }
        port.append(dataclasses.replace(step, tensors=noisy))
    found = explain(port, Optimizer("legacy.SGD"))
    assert found.kind == "unexplained", found.lines
    assert found.lines[0].startswith("No optimizer explains it")


def train_oracle(optimizer, *, steps=STEPS):
    from oracle.steps.trajectory import step_optimizer

    gradients = draw_gradients(steps=steps)
    return attach(step_optimizer(optimizer, INITIAL, gradients), gradients)


WRONG_CODES = {
    ("keras.Adam", "optax.adam"): "C802",
    ("keras.Adam", "betas that are not cast"): "C817",
    ("keras.Adagrad", "the legacy formula"): "C802",
    ("legacy.Nadam", "Keras' 2.11 schedule"): "C814",
    ("tf1.RMSProp", "v that starts at 0"): "C814",
    ("tf1.Adam", "powers in float64"): "C803",
    ("tf1.Momentum", "all rows"): "C813",
    ("tfa.LAMB", "numbers that are not rounded"): "C817",
    ("tfa.RectifiedAdam", "optax.adam"): "C818",
    ("tfa.AdamW", "decay scaled by the rate"): "C808",
    ("tfa.Lookahead", "no synchronisation"): "C819",
}
"""Of the wrong formulas of tests/trajectories, those that no optimizer of TensorFlow's above has."""


@pytest.mark.jax
@pytest.mark.parametrize("name, what", WRONG_CODES)
def test_a_formula_that_is_easily_taken_for_it_is_named(name, what):
    from tests.trajectories.measuring import keep_parameters, use_counterpart
    from tests.trajectories.wrong_variants import WRONG

    ((optimizer, build),) = [
        (one, build) for one, said, build in WRONG if (one.name, said) == (name, what) and not one.arguments
    ]
    with use_counterpart(build):
        steps = train_oracle(optimizer, steps=7)
    port = attach(keep_parameters(steps), [step.gradients for step in steps])
    found = explain(port, optimizer)
    assert (found.kind, found.best.codes) == ("explained", (WRONG_CODES[name, what],)), found.lines


@pytest.mark.jax
def test_a_comparison_asks_for_the_reason_only_where_there_is_one():
    from oracle.explain_trajectory import explain_steps

    meant = Optimizer("keras.Adam")
    oracle = train_oracle(meant, steps=4)
    asked = []

    def ask(port, divergence):
        asked.append((len(port), divergence.step))
        return explain_steps(port, optimizer=meant, initial=INITIAL, divergence=divergence)

    assert compare_trajectories(oracle, oracle, initial=INITIAL, explain=ask).explanation is None
    wrong = train_oracle(Optimizer("keras.Adam", {"epsilon": 1e-8}), steps=4)
    comparison = compare_trajectories(wrong, oracle, initial=INITIAL, explain=ask)
    assert comparison.explanation.best.codes == ("C801",)
    blind = [dataclasses.replace(step, gradients=None) for step in wrong]
    assert compare_trajectories(blind, oracle, initial=INITIAL, explain=ask).explanation is None
    assert asked == [(4, 1)]


def test_what_cannot_be_driven_is_refused():
    step = Step(1, None, 1.0, {"parameter/bias": np.ones(4)})
    with pytest.raises(UsageError, match="no step"):
        explain([], Optimizer("keras.Adam"))
    with pytest.raises(UsageError, match="step 1 holds no gradients"):
        explain([step], Optimizer("keras.Adam"))
    with pytest.raises(UsageError, match="a gradient of kernel"):
        explain([dataclasses.replace(step, gradients={"kernel": np.ones(4)})], Optimizer("keras.Adam"))


def test_gradients_of_none_drive_nothing():
    step = Step(1, None, 0.0, {"parameter/bias": INITIAL["bias"]}, {"bias": None})
    found = explain([step], Optimizer("keras.Adam"))
    assert found.kind == "unexplained"
    assert "No variable has a gradient" in found.lines[0]


def test_every_alternative_has_words():
    from oracle.alternative_numbers import list_families
    from oracle.alternatives import list_alternatives
    from oracle.causes.cause import Setting
    from oracle.optimizer import DEFAULTS

    given = {"tfa.Lookahead": {"inner": Optimizer("legacy.Adam")}}
    for name in DEFAULTS:
        optimizer = Optimizer(name, **given.get(name, {}))
        listed = list_alternatives(optimizer, slices=True)
        listed += [family.make(family.starts[0]) for family in list_families(optimizer)]
        assert listed
        for one in listed:
            said = CAUSES[one.code].say(Setting(one.setting, numbers=one.numbers))
            assert said
            assert "{" not in said
            assert "{" not in CAUSES[one.code].advise(Setting(one.setting, numbers=one.numbers))


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_the_command_says_why(capsys):
    from oracle.commands.trajectory import trajectory

    options = {"steps": 2, "batch_size": 2, "optimizer": "keras.Adam"}
    assert trajectory("explicit_state/full", trained_by="adam", trained_by_arg=("epsilon=1e-5",), **options)
    said = capsys.readouterr().out
    assert "exactly" in said
    assert "epsilon is 1e-05, not 1e-07." in said
    assert "See docs/causes/C801.md." in said
    assert trajectory("implicit_state/exchanged", output_format="json", **options) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["explanation"]["best"]["codes"] == ["C821"]
    assert trajectory("explicit_state/full", output_format="json", **options) == 0
    assert json.loads(capsys.readouterr().out)["explanation"] is None


def test_an_argument_without_a_class_is_refused():
    from oracle.commands.trajectory import trajectory

    with pytest.raises(UsageError, match="give --trained-by"):
        trajectory("explicit_state/full", trained_by_arg=("epsilon=1e-5",))
