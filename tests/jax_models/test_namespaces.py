"""The public names, and the list of quirks, are what they say they are."""

from __future__ import annotations

import importlib
import inspect

import pytest

from jax_models.quirks import QUIRKS

pytestmark = pytest.mark.jax


@pytest.mark.tf
def test_seq2seq_has_every_name_of_tfa_seq2seq() -> None:
    from tests.parity.tensorflow_side import tfa

    public = {name for name in dir(tfa.seq2seq) if not name.startswith("_")}
    # Submodules are no part of the interface.
    public = {name for name in public if not inspect.ismodule(getattr(tfa.seq2seq, name))}
    from jax_models import seq2seq

    assert set(seq2seq.__all__) == public
    assert len(public) == 32


@pytest.mark.parametrize("module", ["seq2seq", "tf1", "keras_layers", "tfa_cells"])
def test_every_public_name_is_there_and_says_what_it_is(module: str) -> None:
    namespace = importlib.import_module(f"jax_models.{module}")
    names = getattr(namespace, "__all__", None) or [
        name
        for name, value in vars(namespace).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == namespace.__name__
    ]
    assert names
    for name in names:
        assert inspect.getdoc(getattr(namespace, name)), name


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: f"{quirk.where}.{quirk.switch}")
def test_quirk_is_a_switch_whose_default_is_tensorflows(quirk) -> None:
    module, name = quirk.where.split(".")
    owner = getattr(importlib.import_module(f"jax_models.{module}"), name)
    parameter = inspect.signature(owner).parameters[quirk.switch]
    assert parameter.default == quirk.default
    assert quirk.corrected != quirk.default


def test_jax_models_never_imports_tensorflow_nor_the_oracle() -> None:
    import ast
    from pathlib import Path

    import jax_models

    for path in Path(jax_models.__file__).parent.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & {
                "tensorflow",
                "tensorflow_addons",
                "keras",
                "oracle",
                "tf_models",
            }, path
