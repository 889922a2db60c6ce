"""The rules that several namespaces share. Each gives what to add to a parameter, and the slots after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_models.optimizers.rules import Coefficients, Number, Rule

Prepare = Callable[[Any, Coefficients], tuple[Coefficients, dict[str, Any]]]


def momentum(momentum: Number, nesterov: bool) -> Rule:
    """m = momentum m - lr g; the change is m, or momentum m - lr g. `ResourceApplyKerasMomentum`."""

    def rule(g: Any, p: Any, slots: dict[str, Any], c: Coefficients) -> tuple[Any, dict[str, Any]]:
        del p
        m = momentum * slots["momentum"] - c["lr"] * g
        return (momentum * m - c["lr"] * g if nesterov else m), {"momentum": m}

    return rule


def adam_rate(beta_1: Number, beta_2: Number) -> Prepare:
    """alpha = lr sqrt(1 - beta_2^t) / (1 - beta_1^t)."""

    def prepare(step: Any, c: Coefficients) -> tuple[Coefficients, dict[str, Any]]:
        alpha = c["lr"] * jnp.sqrt(1 - jnp.power(beta_2, step)) / (1 - jnp.power(beta_1, step))
        return {"alpha": alpha}, {}

    return prepare


def adam(beta_1: Number, beta_2: Number, epsilon: Number, amsgrad: bool = False) -> Rule:
    """The change is -alpha m / (sqrt(v) + epsilon), alpha being a coefficient. `ResourceApplyAdam`."""

    def rule(g: Any, p: Any, slots: dict[str, Any], c: Coefficients) -> tuple[Any, dict[str, Any]]:
        del p
        m = slots["m"] + (g - slots["m"]) * (1 - beta_1)
        v = slots["v"] + (jnp.square(g) - slots["v"]) * (1 - beta_2)
        after, scale = {"m": m, "v": v}, v
        if amsgrad:
            scale = after["vhat"] = jnp.maximum(slots["vhat"], v)
        return -c["alpha"] * m / (jnp.sqrt(scale) + epsilon), after

    return rule


def adamax_rate(beta_1: Number) -> Prepare:
    """lr / (1 - beta_1^t)."""

    def prepare(step: Any, c: Coefficients) -> tuple[Coefficients, dict[str, Any]]:
        return {"alpha": c["lr"] / (1 - jnp.power(beta_1, step))}, {}

    return prepare


def adamax(beta_1: Number, beta_2: Number, epsilon: Number) -> Rule:
    """u = max(beta_2 u, |g|); the change is -alpha m / (u + epsilon). `ResourceApplyAdaMax`."""

    def rule(g: Any, p: Any, slots: dict[str, Any], c: Coefficients) -> tuple[Any, dict[str, Any]]:
        del p
        m = slots["m"] + (g - slots["m"]) * (1 - beta_1)
        u = jnp.maximum(beta_2 * slots["u"], jnp.abs(g))
        return -c["alpha"] * m / (u + epsilon), {"m": m, "u": u}

    return rule


def nadam_schedule(beta_1: Number, beta_2: Number, *, schedule_decay: Number, product: str) -> Prepare:
    """u_t = beta_1 (1 - 0.96^(t schedule_decay) / 2), and the scalar `product` of all u so far.

    0.96 is cast by way of float32; see `jax_models.optimizers.keras`.
    """
    base = float(np.float32(0.96))

    def prepare(step: Any, c: Coefficients) -> tuple[Coefficients, dict[str, Any]]:
        u = beta_1 * (1 - 0.5 * jnp.power(base, step * schedule_decay))
        u_next = beta_1 * (1 - 0.5 * jnp.power(base, (step + 1) * schedule_decay))
        so_far = c[product].astype(step.dtype) * u
        more = {
            "u": u,
            "u_next": u_next,
            "rest": 1 - so_far,
            "rest_next": 1 - so_far * u_next,
            "v_rest": 1 - jnp.power(beta_2, step),
        }
        return more, {product: so_far}

    return prepare


def nadam(beta_1: Number, beta_2: Number, epsilon: Number) -> Rule:
    """The change is -lr m^ / (sqrt(v / (1 - beta_2^t)) + epsilon), m^ as in `keras.nadam`."""

    def rule(g: Any, p: Any, slots: dict[str, Any], c: Coefficients) -> tuple[Any, dict[str, Any]]:
        del p
        m = slots["m"] + (g - slots["m"]) * (1 - beta_1)
        v = slots["v"] + (jnp.square(g) - slots["v"]) * (1 - beta_2)
        m_hat = c["u_next"] * m / c["rest_next"] + (1 - c["u"]) * g / c["rest"]
        return -c["lr"] * m_hat / (jnp.sqrt(v / c["v_rest"]) + epsilon), {"m": m, "v": v}

    return rule


def ftrl(power: Number, l1: Number, l2: Number, l2_shrinkage: Number, beta: Number) -> Rule:
    """n' = n + g^2; z += g + 2 l2_shrinkage p - (n'^-power - n^-power) / lr p;
    p = (clip(z, -l1, l1) - z) / (n'^-power / lr + 2 l2 + beta / lr). `ResourceApplyFtrlV2`.
    """

    def rule(g: Any, p: Any, slots: dict[str, Any], c: Coefficients) -> tuple[Any, dict[str, Any]]:
        before, lr = slots["accumulator"], c["lr"]
        after = before + jnp.square(g)
        shrunk = g + 2 * l2_shrinkage * p
        linear = slots["linear"] + shrunk - (jnp.power(after, -power) - jnp.power(before, -power)) / lr * p
        quadratic = jnp.power(after, -power) / lr + 2 * (l2 + beta / (2 * lr))
        new = (jnp.clip(linear, -l1, l1) - linear) / quadratic
        return new - p, {"accumulator": after, "linear": linear}

    return rule


def adagrad_outside(epsilon: Number) -> Rule:
    """a += g^2; the change is -lr g / (sqrt(a) + epsilon). `ResourceApplyAdagradV2`."""

    def rule(g: Any, p: Any, slots: dict[str, Any], c: Coefficients) -> tuple[Any, dict[str, Any]]:
        del p
        accumulator = slots["accumulator"] + jnp.square(g)
        return -c["lr"] * g / (jnp.sqrt(accumulator) + epsilon), {"accumulator": accumulator}

    return rule


def rmsprop_outside(rho: Number, epsilon: Number, centered: bool) -> Rule:
    """The change is -lr g / (sqrt(v) + epsilon), centered of v - a^2."""

    def rule(g: Any, p: Any, slots: dict[str, Any], c: Coefficients) -> tuple[Any, dict[str, Any]]:
        del p
        rms = rho * slots["rms"] + (1 - rho) * jnp.square(g)
        after, variance = {"rms": rms}, rms
        if centered:
            after["mg"] = rho * slots["mg"] + (1 - rho) * g
            variance = rms - jnp.square(after["mg"])
        return -c["lr"] * g / (jnp.sqrt(variance) + epsilon), after

    return rule
