"""What is installed here, what the frameworks run on, and which commands have what they need."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from oracle import zoo
from oracle.compilation_cache import keep_programs
from oracle.errors import MissingPackageError
from oracle.frameworks import import_jax, import_tensorflow, import_tfa, installed_version

_DISTRIBUTIONS = (
    "gradient-oracle",
    "numpy",
    "safetensors",
    "tensorflow",
    "tensorflow-addons",
    "jax",
    "jaxlib",
    "flax",
    "optax",
)

_ENVIRONMENT = (
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "XLA_FLAGS",
    "TF_ENABLE_ONEDNN_OPTS",
    "CUDA_VISIBLE_DEVICES",
)
"""Variables of the environment that change what the frameworks compute, or on what."""


@dataclass(frozen=True)
class _Side:
    """One framework: what it says of itself, or why it cannot be used."""

    facts: list[str]
    missing: str | None


def examine() -> tuple[str, bool]:
    """A report for people, and whether every command has what it needs."""
    tensorflow, tfa, jax = _examine_tensorflow(), _examine_tfa(), _examine_jax()
    lines = [f"Python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPUs"]
    lines += [f"{name} {installed_version(name) or 'not installed'}" for name in _DISTRIBUTIONS]
    lines += tensorflow.facts + jax.facts
    lines += [f"{name}={os.environ[name]}" for name in _ENVIRONMENT if name in os.environ]
    for weights in dict.fromkeys(choice.variant.weights for choice in zoo.choices()):
        if not weights.with_suffix(".index").is_file():
            lines.append(f"trained weights are missing: {weights}.index; use --weights")
    needs = {
        "oracle compare": (tensorflow, tfa, jax),
        "oracle decode": (tensorflow, tfa, jax),
        "oracle train dynamic_rnn": (tensorflow,),
        "oracle train explicit_state": (tensorflow, tfa),
    }
    healthy = True
    for command, sides in needs.items():
        missing = list(dict.fromkeys(side.missing for side in sides if side.missing))
        healthy = healthy and not missing
        lines.append(f"{command}: {'; '.join(missing) if missing else 'ready'}")
    return "\n".join(lines) + "\n", healthy


def _examine_tensorflow() -> _Side:
    try:
        tf = import_tensorflow()
    except MissingPackageError as error:
        return _Side([], str(error))
    devices = ", ".join(device.name for device in tf.config.list_physical_devices())
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    return _Side(
        [
            f"tensorflow devices: {devices}",
            f"tensorflow TF32: {'on' if tf32 else 'off'} (switched off while a port is compared)",
        ],
        None,
    )


def _examine_tfa() -> _Side:
    try:
        import_tfa()
    except MissingPackageError as error:
        return _Side([], str(error))
    return _Side([], None)


def _examine_jax() -> _Side:
    try:
        jax = import_jax()
    except MissingPackageError as error:
        return _Side([], str(error))
    devices = ", ".join(f"{device.platform}:{device.id}" for device in jax.devices())
    folder = keep_programs(dict(os.environ))
    return _Side(
        [
            f"jax devices: {devices}",
            f"jax keeps compiled programs in: {folder or 'nothing'} (set ORACLE_CACHE_DIR to another "
            "place, or to nothing)",
            f"jax default: x64 {'on' if jax.config.jax_enable_x64 else 'off'}, matmul precision "
            f"{jax.config.jax_default_matmul_precision or 'default'} (float64 and highest while the "
            "oracle runs)",
        ],
        None,
    )
