"""TensorFlow and JAX, imported when a function needs them, with an error that says what to install."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import warnings
from collections.abc import Iterator
from types import ModuleType

from oracle.errors import MissingPackageError

PORT_PACKAGES = ("tensorflow", "tensorflow-addons", "keras", "tf-keras", "numpy")
"""The packages that take part in a port, whose versions its record keeps."""


def import_tensorflow() -> ModuleType:
    """Import TensorFlow without its start-up chatter.

    Raises:
        MissingPackageError: if it is not installed or cannot be imported.
    """
    _quiet_cpp_logs()
    if installed_version("tf-keras"):
        # From TensorFlow 2.16 on, tf.keras is Keras 3, which lacks the legacy cells, unless asked.
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    tensorflow = _import("tensorflow", extra="tf", hint="TensorFlow 2.15 needs Python 3.11 and NumPy 1")
    # tfa leaves assertions unused in v1 graphs, which TensorFlow logs as errors with tracebacks.
    tensorflow.get_logger().setLevel("CRITICAL")
    return tensorflow


def import_tfa() -> ModuleType:
    """Import TensorFlow Addons without its end-of-life notice.

    Raises:
        MissingPackageError: if it is not installed or cannot be imported, as beside TensorFlow 2.16
            and later.
    """
    import_tensorflow()
    return _import("tensorflow_addons", extra="tf", hint="tfa needs Python 3.11 and TensorFlow 2.15")


def import_jax() -> ModuleType:
    """Import JAX, and Flax with it.

    Raises:
        MissingPackageError: if one of them is not installed or cannot be imported.
    """
    _quiet_cpp_logs()
    _import("flax.linen", extra="jax", hint="flax must fit jax, as 0.10.3 does 0.4.34")
    return _import("jax", extra="jax", hint="jax and jaxlib must be of one version")


@contextlib.contextmanager
def precise_jax() -> Iterator[None]:
    """Let JAX use float64, and matrix products of full precision, within the context only."""
    jax = import_jax()
    # The context manager left jax.experimental in jax 0.8.
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable_x64(True), jax.default_matmul_precision("highest"):
        yield


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None. Imports nothing."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _quiet_cpp_logs() -> None:
    # Both frameworks read it once, whichever is imported first; JAX's own default lets chatter through.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _import(module: str, *, extra: str, hint: str) -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except (ImportError, AttributeError, TypeError) as error:
        # An incompatible pair of versions fails with any of these.
        package = module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name in (package, module):
            state = "is not installed"
        else:
            state = f"cannot be imported here ({type(error).__name__}: {error}; {hint})"
        raise MissingPackageError(
            f"{package} {state}; install it with `pip install 'gradient-oracle[{extra}]'`"
        ) from error
