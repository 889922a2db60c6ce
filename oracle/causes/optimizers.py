"""C80: optimizers. No knob of a model turns them: `oracle.explain_trajectory` tries them on a trajectory."""

from __future__ import annotations

from collections.abc import Iterator

from oracle.causes.cause import ModelSpec, Setting, Tensors, cause


def never(spec: ModelSpec, batch: Tensors) -> bool:
    """No record: one step's gradients say nothing of what is done with them."""
    del spec, batch
    return False


def _propose_nothing(*_: object) -> Iterator[Setting]:
    yield from ()


def _describe(code: str, title: str, sentence: str, remedy: str, *, wrong: str = "", right: str = "") -> None:
    register = cause(
        code,
        title=title,
        sentence=sentence,
        remedy=remedy,
        kind="trains",
        applies=never,
        wrong=wrong,
        right=right,
    )
    register(_propose_nothing)


_describe(
    "C801",
    "the optimizer's epsilon is another number",
    "epsilon is {given:.10g}, not {meant:.10g}",
    "Give `epsilon` to the optimizer. Its defaults differ: 1e-7 in Keras, 1e-8 in TF1's and optax's Adam, "
    "1e-10 in TF1's RMSProp, 1e-6 in LAMB.",
    wrong="optimizer = tf.keras.optimizers.Adam(1e-3)  # Was tf.compat.v1.train.AdamOptimizer(1e-3).",
    right="optimizer = tf.keras.optimizers.Adam(1e-3, epsilon=1e-8)",
)
_describe(
    "C802",
    "the optimizer's epsilon stands elsewhere",
    "epsilon stands elsewhere: {setting}",
    "Use TensorFlow's class rather than a formula of one's own. Keras' and TF1's Adam add epsilon to sqrt(v) "
    "before the bias is corrected (epsilon hat: Kingma and Ba 2014, end of section 2); to write it as the "
    "paper's algorithm has it, divide epsilon by sqrt(1 - beta_2**t).",
    wrong="v_hat = v / (1 - beta_2**t)\np.assign_sub(lr * m / (1 - beta_1**t) / (tf.sqrt(v_hat) + epsilon))",
    right="alpha = lr * tf.sqrt(1 - beta_2**t) / (1 - beta_1**t)\n"
    "p.assign_sub(alpha * m / (tf.sqrt(v) + epsilon))",
)
_describe(
    "C803",
    "the bias of Adam's moments is corrected otherwise",
    "the bias of the moments is corrected otherwise: {setting}",
    "Scale the rate by sqrt(1 - beta_2**t) / (1 - beta_1**t), t being 1 at the first step: use `iterations + "
    "1`. TF1's Adam multiplies both powers in float32; `tf.compat.v1.train.AdamOptimizer` runs in TF2, too.",
    wrong="p.assign_sub(lr * m / (tf.sqrt(v) + epsilon))",
    right="t = tf.cast(optimizer.iterations + 1, p.dtype)\n"
    "p.assign_sub(lr * tf.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (tf.sqrt(v) + epsilon))",
)
_describe(
    "C804",
    "the learning rate is another number",
    "the learning rate is {factor:.10g} times what was meant",
    "Give `learning_rate` to the optimizer; the defaults differ from class to class. If the factor is the "
    "batch's size or the number of replicas, a sum stands where a mean should; if it is -1, the step goes up "
    "the gradient.",
    wrong='model.compile("sgd")',
    right="model.compile(tf.keras.optimizers.SGD(learning_rate=0.1))",
)
_describe(
    "C805",
    "the learning rate's schedule is another",
    "the rate's schedule is another: {setting}",
    "Give the schedule itself as `learning_rate`, and let the optimizer's own `iterations` count the steps, "
    "from 0. TF1 needs `global_step` in both the schedule and `apply_gradients`.",
    wrong="step = tf.compat.v1.train.get_or_create_global_step()\n"
    "rate = tf.compat.v1.train.exponential_decay(0.1, step, 1000, 0.96)\n"
    "train_op = tf.compat.v1.train.GradientDescentOptimizer(rate).apply_gradients(pairs)",
    right="train_op = tf.compat.v1.train.GradientDescentOptimizer(rate).apply_gradients("
    "pairs, global_step=step)",
)
_describe(
    "C806",
    "a momentum or a beta is another number",
    "{setting} is {given:.10g}, not {meant:.10g}",
    "Give it to the optimizer. What Keras calls `rho`, TF1's RMSProp calls `decay`; "
    "`tf.keras.optimizers.SGD` has no momentum unless one is given.",
    wrong="tf.keras.optimizers.SGD(0.1)",
    right="tf.keras.optimizers.SGD(0.1, momentum=0.9)",
)
_describe(
    "C807",
    "Nesterov's momentum is on or off",
    "Nesterov's momentum is {setting}",
    "Set `nesterov` (in TF1 `use_nesterov`) as the original has it; it is off by default.",
)
_describe(
    "C808",
    "the weights decay otherwise",
    "the weights decay otherwise: {setting}",
    "`weight_decay=` of a Keras optimizer takes lr * weight_decay * p from each weight, and that of tfa's "
    "AdamW and SGDW weight_decay * p, both past the moments; an L2 term in the loss goes through "
    "the moments, with a gradient of rate * p for `tf.nn.l2_loss` and twice that for "
    "`tf.keras.regularizers.l2`. Use the one that was meant, once.",
    wrong="loss += 0.01 * tf.add_n([tf.nn.l2_loss(p) for p in weights])  # With Adam.",
    right="tf.keras.optimizers.AdamW(1e-3, weight_decay=0.01)",
)
_describe(
    "C809",
    "AMSGrad is on or off",
    "AMSGrad is {setting}",
    "Set `amsgrad` as the original has it; it is off by default, and TF1's Adam has none.",
)
_describe(
    "C810",
    "RMSProp is centered or not",
    "RMSProp is {setting}",
    "Set `centered` as the original has it; it is off by default.",
)
_describe(
    "C811",
    "the momentum is gathered with the rate or without it",
    "the momentum is gathered otherwise: {setting}",
    "Keras keeps v = momentum * v - lr * g, TF1 v = momentum * v + g and applies lr * v: they part where the "
    "rate changes. For TF1's numbers keep `tf.compat.v1.train.MomentumOptimizer`, or scale the slot by the "
    "new rate over the old one when the rate changes.",
    wrong="tf.keras.optimizers.SGD(schedule, momentum=0.9)",
    right="tf.compat.v1.train.MomentumOptimizer(schedule(step), 0.9)",
)
_describe(
    "C812",
    "gradients are clipped otherwise",
    "gradients are clipped otherwise: {setting}",
    "`clipnorm` is of each variable by itself, `global_clipnorm` of all together (`tf.clip_by_global_norm`), "
    "`clipvalue` of each element. Clip once: before `apply_gradients`, or by the optimizer.",
    wrong="tf.keras.optimizers.SGD(0.1, clipnorm=5.0)  # Was tf.clip_by_global_norm(gradients, 5.0).",
    right="tf.keras.optimizers.SGD(0.1, global_clipnorm=5.0)",
)
_describe(
    "C813",
    "rows without a gradient are treated otherwise",
    "rows that a `tf.IndexedSlices` does not name are treated otherwise: {setting}",
    "Keep the gradient of an embedding as it is: `tf.convert_to_tensor` makes it dense. Lazily updated "
    "moments are those of `tfa.optimizers.LazyAdam`, of legacy Keras' momentum, and of most of TF1's "
    "optimizers, but not of Adam.",
    wrong="gradients = [tf.convert_to_tensor(g) for g in gradients]",
    right="optimizer.apply_gradients(zip(gradients, variables))",
)
_describe(
    "C814",
    "the formula is that of another version of the optimizer",
    "the formula is that of {setting}",
    "Keras 2.11 rewrote the optimizers: `tf.keras.optimizers.legacy` has those of before. TF1's are still "
    "there as `tf.compat.v1.train`. Use the one that the original was trained by.",
    wrong="tf.keras.optimizers.RMSprop(1e-3)",
    right="tf.keras.optimizers.legacy.RMSprop(1e-3)",
)
_describe(
    "C815",
    "gradients are gathered over several steps",
    "the weights move at every step number {every:.0f} alone, {setting}",
    "Call `apply_gradients` at every batch, or gather on both sides; divide what is gathered by the number "
    "of batches if it stands for one large batch.",
)
_describe(
    "C816",
    "a step is lost, or what is kept between steps",
    "something is lost between steps: {setting}",
    "Make the optimizer once, outside of the training step and the loop, and restore it with the weights: "
    "`tf.train.Checkpoint(model=model, optimizer=optimizer)`.",
    wrong="for batch in batches:\n    optimizer = tf.keras.optimizers.Adam()\n    step(batch, optimizer)",
    right="optimizer = tf.keras.optimizers.Adam()\nfor batch in batches:\n    step(batch, optimizer)",
)
_describe(
    "C817",
    "the optimizer's numbers are rounded otherwise",
    "the optimizer's numbers are rounded otherwise: {setting}",
    "TensorFlow 1, tfa and legacy Keras keep hyperparameters in float32, though the variables be float64; "
    "Keras 2.11 the rate in floatx. For a comparison in float64, use numbers that float32 holds, or "
    '`tf.keras.backend.set_floatx("float64")`; give a schedule `np.float64` numbers.',
)
_describe(
    "C818",
    "it is another optimizer",
    "the optimizer is {setting}",
    "Make the optimizer that was meant, and give it to what applies the gradients: `compile` takes "
    '"rmsprop" if it is told nothing.',
)
_describe(
    "C819",
    "the weights are averaged otherwise",
    "the weights are averaged otherwise: {setting}",
    "Check `use_ema`, `ema_overwrite_frequency` and what `tfa.optimizers.Lookahead` wraps.",
)
_describe(
    "C820",
    "another number of the optimizer's is off",
    "{setting} is {given:.10g}, not {meant:.10g}",
    "Give it to the optimizer: defaults, and what a slot starts from, differ from version to version.",
)
_describe(
    "C821",
    "the optimizer is right, the gradients are not",
    "its own gradients are taken: the optimizer is right",
    "Look at the gradients: `oracle compare` says what is wrong with those of one step.",
)
