"""Which tests can run here, and how many examples hypothesis draws."""

from __future__ import annotations

import importlib.util
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.examples import BRIEF

pytest_plugins = ["pytester"]

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("ci"), max_examples=2000)
# Where the same examples are drawn elsewhere, too: with the newest JAX after the locked one.
settings.register_profile("brief", parent=settings.get_profile("ci"), max_examples=BRIEF)
settings.load_profile("ci")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What the command line is tested with leaves nothing in the developer's own cache.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


if _is_installed("jaxtyping") and _is_installed("beartype") and _is_installed("jax"):
    import jaxtyping

    # Every shape that `jax_models` annotates is checked while the tests run.
    jaxtyping.install_import_hook("jax_models", "beartype.beartype")

NEEDS = {
    "tf": ("tensorflow", "tensorflow_addons"),
    "tf_any": ("tensorflow",),
    "jax": ("jax", "flax"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, modules in NEEDS.items():
            missing = [module for module in modules if not _is_installed(module)]
            if item.get_closest_marker(marker) and missing:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))
