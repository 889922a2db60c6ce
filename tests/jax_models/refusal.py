"""What a test of bad input expects: the error that a user sees, without jaxtyping's import hook."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import jaxtyping
import pytest


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """The import hook of `conftest.py` out of work: annotations are not checked, as at a user's."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextlib.contextmanager
def refused(message: str, error: type[Exception] | tuple[type[Exception], ...] = (ValueError, TypeError)):
    """A ValueError or TypeError of our own that matches `message`."""
    with unchecked(), pytest.raises(error) as caught:
        yield
    said = str(caught.value)
    assert re.search(message, said), said
    assert "Type-check error" not in said, said
