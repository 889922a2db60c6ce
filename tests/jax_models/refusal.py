"""What a test of bad input expects, with and without jaxtyping's import hook."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def refused(message: str) -> Iterator[None]:
    """A ValueError that matches `message`, or jaxtyping's own complaint, which under its hook comes first."""
    with pytest.raises((ValueError, TypeError)) as caught:
        yield
    if isinstance(caught.value, ValueError):
        assert re.search(message, str(caught.value)), str(caught.value)
    else:
        assert "Type-check error" in str(caught.value), str(caught.value)
