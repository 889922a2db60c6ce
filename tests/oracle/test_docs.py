"""What the docs show works as it stands."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.tf
@pytest.mark.jax
def test_the_example_of_an_own_port_passes(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "docs" / "examples" / "own_port.py"))
    printed = capsys.readouterr().out
    assert "PASS my port (eager, float64): all 7 tensors match; 11 were left out, as asked" in printed


def test_the_readme_has_the_lines_that_do_their_own_setup() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "README.md").read_text().splitlines()]
    assert "pip install uv && uv run oracle compare" in lines
    assert "pip install uv && uv run pytest" in lines


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    import re

    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target
