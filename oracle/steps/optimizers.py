"""An optimizer's counterpart in optax. Runs under JAX only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oracle.optimizer import Optimizer, Schedule

if TYPE_CHECKING:
    import optax

_FUNCTIONS = {
    "AdamW": "adamw",
    "GradientDescent": "gradient_descent",
    "LAMB": "lamb",
    "LazyAdam": "lazy_adam",
    "RectifiedAdam": "rectified_adam",
    "SGDW": "sgdw",
}


def build_optimizer(optimizer: Optimizer) -> optax.GradientTransformation:
    """The `optax.GradientTransformation` with an optimizer's exact formula, its numbers rounded as there."""
    from jax_models import optimizers

    arguments = optimizer.rounded()
    if optimizer.schedule is not None:
        arguments["learning_rate"] = build_schedule(optimizer.schedule)
    namespace = getattr(optimizers, optimizer.namespace)
    name = optimizer.name.partition(".")[2]
    if optimizer.inner is not None:
        return namespace.lookahead(build_optimizer(optimizer.inner), **arguments)
    return getattr(namespace, _FUNCTIONS.get(name, name.lower()))(**arguments)


def build_schedule(schedule: Schedule) -> Any:
    """The function of the number of steps that a schedule is."""
    from jax_models.optimizers import schedules

    functions = {
        "ExponentialDecay": schedules.exponential_decay,
        "PiecewiseConstantDecay": schedules.piecewise_constant_decay,
        "PolynomialDecay": schedules.polynomial_decay,
        "InverseTimeDecay": schedules.inverse_time_decay,
        "CosineDecay": schedules.cosine_decay,
        "CosineDecayRestarts": schedules.cosine_decay_restarts,
    }
    return functions[schedule.name](**schedule.whole(), dtype=schedule.dtype)
