"""Optimizers with a deviation that no argument of TensorFlow's expresses, in optax. Runs under JAX only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oracle.alternatives import Form
from oracle.errors import UsageError
from oracle.optimizer import Optimizer


def build_alternative(optimizer: Optimizer, forms: Sequence[Form]) -> Any:
    """The `optax.GradientTransformation` of an optimizer with the forms in it.

    Args:
        optimizer: the optimizer.
        forms: deviations; those that are of the loop (`oracle.alternatives.LOOP_FORMS`) are left to it.
    """
    from jax_models.optimizers import wrappers
    from jax_models.optimizers.rules import on_rows

    by_kind = {form.kind: form for form in forms}
    rate = _build_rate(optimizer, by_kind)
    inner = _build_core(optimizer, rate, by_kind)
    if decay := by_kind.get("decoupled"):
        scaled = "scaled" in decay.word
        amount = wrappers.scale_rate(rate, decay.number) if scaled else decay.number
        rows: Any = next((word for word in ("touched", "none") if word in decay.word), "all")
        inner = wrappers.decoupled_weight_decay(inner, amount, rows=rows)
    if coupled := by_kind.get("coupled"):
        inner = _couple(inner, coupled.number)
    if clip := by_kind.get("clip"):
        import optax

        functions = {
            "clipnorm": wrappers.clip_by_norm,
            "global_clipnorm": wrappers.clip_by_global_norm,
            "clipvalue": wrappers.clip_by_value,
        }
        inner = optax.chain(functions[clip.word](clip.number), inner)
    if rows_form := by_kind.get("rows"):
        inner = on_rows(inner, rows_form.word)  # type: ignore[arg-type]
    return inner


def _build_rate(optimizer: Optimizer, forms: dict[str, Form]) -> Any:
    from oracle.steps.optimizers import build_schedule

    if optimizer.schedule is None:
        numbers = optimizer.whole() if "exact" in forms else optimizer.rounded()
        return numbers.get("learning_rate")
    schedule = build_schedule(optimizer.schedule)
    shift = forms["shift"].number if "shift" in forms else 0
    factor = forms["rate"].number if "rate" in forms else 1.0
    if not shift and factor == 1.0:
        return schedule
    import jax.numpy as jnp

    return lambda count: factor * schedule(jnp.maximum(count + int(shift), 0))


def _build_core(optimizer: Optimizer, rate: Any, forms: dict[str, Form]) -> Any:
    from jax_models import optimizers
    from jax_models.optimizers import wrappers
    from oracle.steps.optimizers import _FUNCTIONS, build_optimizer

    arguments = optimizer.whole() if "exact" in forms else optimizer.rounded()
    if optimizer.inner is not None:
        if "exact" in forms or "shift" in forms or "rate" in forms or "formula" in forms:
            inner = build_alternative(optimizer.inner, [*forms.values()])
        else:
            inner = build_optimizer(optimizer.inner)
        return optimizers.tfa.lookahead(inner, **arguments)
    arguments["learning_rate"] = rate
    namespace, _, name = optimizer.name.partition(".")
    form = forms.get("formula")
    if form is None:
        if "exact" in forms and namespace == "keras" and name in ("Adam", "AdamW", "SGD", "Nadam", "Adamax"):
            return _build_uncast(name, arguments)
        function = getattr(getattr(optimizers, namespace), _FUNCTIONS.get(name, name.lower()))
        return function(**arguments)
    core = _build_formula(namespace, name, rate, arguments, form.word, exact="exact" in forms)
    options = {
        key: arguments[key] for key in ("clipnorm", "clipvalue", "global_clipnorm") if key in arguments
    }
    if namespace == "keras":
        averages = ("weight_decay", "use_ema", "ema_momentum", "ema_overwrite_frequency")
        more = {key: arguments[key] for key in averages}
        return wrappers.with_keras_options(core, rate, **options, **more)
    if name == "AdamW":
        core = wrappers.decoupled_weight_decay(core, arguments["weight_decay"], rows="touched")
    return wrappers.with_legacy_options(core, **options)


def _build_uncast(name: str, arguments: dict[str, Any]) -> Any:
    """Keras 2.11's formula with the numbers as they are: it is legacy Keras', of all rows."""
    from jax_models.optimizers import formulas, legacy, wrappers
    from jax_models.optimizers.rules import by_rule

    shared = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm")
    shared += ("use_ema", "ema_momentum", "ema_overwrite_frequency")
    options = {key: arguments[key] for key in shared}
    own = {key: value for key, value in arguments.items() if key not in shared}
    rate = arguments["learning_rate"]
    if name == "SGD":
        rule = formulas.momentum(own["momentum"], own["nesterov"])
        core = by_rule(rule, rate, slots={"momentum": 0.0})
    elif name == "Nadam":
        core = legacy.nadam(**own, decay=1.0)
    elif name == "Adamax":
        core = legacy.adamax(**own)
    else:
        core = legacy.adam(**own)
    return wrappers.with_keras_options(core, rate, **options)


def _build_formula(
    namespace: str, name: str, rate: Any, arguments: dict[str, Any], word: str, *, exact: bool
) -> Any:
    """Adam's, Adamax', Adagrad's and RMSprop's formulas, with epsilon or the correction elsewhere."""
    import jax.numpy as jnp
    import optax

    from jax_models.optimizers import formulas
    from jax_models.optimizers.rules import by_rule, on_rows

    epsilon = arguments.get("epsilon", 1e-7)
    if name == "Adamax":
        return on_rows(optax.adamax(rate, arguments["beta_1"], arguments["beta_2"], epsilon), "all")
    if name == "Nadam":
        return on_rows(optax.nadam(rate, arguments["beta_1"], arguments["beta_2"], epsilon), "all")
    if name == "Adagrad":
        start = arguments["initial_accumulator_value"]
        if word == "outside":
            return by_rule(formulas.adagrad_outside(epsilon), rate, slots={"accumulator": start})
        return on_rows(optax.adagrad(rate, start, 0.0 if word == "without" else epsilon), "all")
    if name in ("RMSprop", "RMSProp"):
        return _build_rms(rate, arguments, word)
    if name == "SGD":
        return _build_momentum(namespace, rate, arguments, exact=exact)
    if name not in ("Adam", "AdamW", "LazyAdam"):
        raise UsageError(f"{namespace}.{name}: it has no form {word!r}")
    beta_1 = arguments.get("beta_1", arguments.get("beta1"))
    beta_2 = arguments.get("beta_2", arguments.get("beta2"))
    # Keras 2.11 takes the powers of the betas that float32 holds.
    cast = namespace == "keras" and not exact
    power_1, power_2 = (float(np.float32(b)) if cast else b for b in (beta_1, beta_2))
    amsgrad = arguments.get("amsgrad", False)

    def prepare(step: Any, c: Any) -> tuple[Any, dict[str, Any]]:
        late = step + (1 if word == "late" else 0)
        first = 1.0 if word in ("none", "second") else 1 - jnp.power(power_1, late)
        second = 1.0 if word in ("none", "first") else 1 - jnp.power(power_2, late)
        return {"first": first, "second": second}, {}

    def rule(g: Any, p: Any, slots: Any, c: Any) -> tuple[Any, Any]:
        del p
        m = slots["m"] + (g - slots["m"]) * (1 - beta_1)
        v = slots["v"] + (jnp.square(g) - slots["v"]) * (1 - beta_2)
        after, scale = {"m": m, "v": v}, v
        corrected = v / c["second"]
        if amsgrad:
            largest_v = corrected if word == "corrected" else v
            after["vhat"] = jnp.maximum(slots["vhat"], largest_v)
            scale = after["vhat"]
            corrected = scale if word == "corrected" else scale / c["second"]
        if word == "corrected":
            root = jnp.sqrt(corrected) + epsilon
        elif word == "corrected inside":
            root = jnp.sqrt(corrected + epsilon)
        elif word == "inside":
            root = jnp.sqrt(scale + epsilon) / jnp.sqrt(c["second"])
        else:
            root = (jnp.sqrt(scale) + epsilon) / jnp.sqrt(c["second"])
        return -c["lr"] * m / c["first"] / root, after

    slots = {"m": 0.0, "v": 0.0, **({"vhat": 0.0} if amsgrad else {})}
    rows: Any = "touched" if name == "LazyAdam" else "all"
    return by_rule(rule, rate, slots=slots, prepare=prepare, rows=rows)


def _build_momentum(namespace: str, rate: Any, arguments: dict[str, Any], *, exact: bool) -> Any:
    """TF1's momentum, without the rate in it, in Keras' place."""
    import optax

    from jax_models.optimizers.rules import on_rows

    momentum = arguments["momentum"]
    if namespace == "keras" and not exact:
        momentum = float(np.float32(momentum))
    inner = optax.sgd(rate, momentum, nesterov=arguments["nesterov"])
    return on_rows(inner, "all" if namespace == "keras" else "touched")


def _build_rms(rate: Any, arguments: dict[str, Any], word: str) -> Any:
    import jax.numpy as jnp

    from jax_models.optimizers.rules import by_rule

    rho = arguments.get("rho", arguments.get("decay"))
    momentum, epsilon, centered = (arguments[key] for key in ("momentum", "epsilon", "centered"))
    start = 1.0 if "one" in word else 0.0

    def rule(g: Any, p: Any, slots: Any, c: Any) -> tuple[Any, Any]:
        del p
        rms = rho * slots["rms"] + (1 - rho) * jnp.square(g)
        after, variance = {"rms": rms}, rms
        if centered:
            after["mg"] = rho * slots["mg"] + (1 - rho) * g
            variance = rms - jnp.square(after["mg"])
        inside = "inside" in word
        root = jnp.sqrt(variance + epsilon) if inside else jnp.sqrt(variance) + epsilon
        step = c["lr"] * g / root
        if momentum:
            step = after["momentum"] = momentum * slots["momentum"] + step
        return -step, after

    names = {"rms": start, **({"mg": 0.0} if centered else {}), **({"momentum": 0.0} if momentum else {})}
    return by_rule(rule, rate, slots=names)


def _couple(inner: Any, rate: float) -> Any:
    """L2 through the optimizer, of dense gradients and of slices."""
    import jax
    import optax

    from jax_models.optimizers.rules import densify

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        structure = jax.tree.structure(params)
        summed = [
            densify(gradient, parameter)[0] + rate * parameter
            for gradient, parameter in zip(
                structure.flatten_up_to(updates), jax.tree.leaves(params), strict=True
            )
        ]
        return inner.update(structure.unflatten(summed), state, params)

    return optax.GradientTransformation(inner.init, update)
