"""What JAX compiled is kept: a second run compiles nothing, and whoever does not want it need not have it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bench.commands import count_compiled
from oracle.compilation_cache import PLACE, keep_programs

RECORD = Path(__file__).parent.parent / "golden" / "records" / "recorded-tf2.15-function.safetensors"


def test_a_place_is_made_and_said_in_the_environment(tmp_path: Path) -> None:
    environment = {PLACE: str(tmp_path / "cache")}
    folder = keep_programs(environment)
    assert folder is not None
    assert folder.is_dir()
    assert folder.parent == tmp_path / "cache"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    assert keep_programs({PLACE: str(tmp_path / "cache")}) == folder


def test_what_a_person_set_up_for_jax_stays(tmp_path: Path) -> None:
    environment = {"JAX_COMPILATION_CACHE_DIR": "/mine"}
    assert keep_programs(environment) == Path("/mine")
    assert environment == {"JAX_COMPILATION_CACHE_DIR": "/mine"}
    environment = {PLACE: str(tmp_path), "JAX_COMPILATION_CACHE_MAX_SIZE": "7"}
    keep_programs(environment)
    assert environment["JAX_COMPILATION_CACHE_MAX_SIZE"] == "7"


@pytest.mark.parametrize(
    "given",
    [
        {PLACE: ""},
        {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        {"JAX_COMPILATION_CACHE_DIR": ""},
        {"JAX_COORDINATOR_ADDRESS": "localhost:1234"},
    ],
)
def test_who_wants_none_gets_none(given: dict[str, str]) -> None:
    environment = dict(given)
    assert keep_programs(environment) is None
    assert environment == given


def test_where_nothing_can_be_written_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert keep_programs({PLACE: str(tmp_path / "file" / "cache")}) is None
    if os.getuid() != 0:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert keep_programs({PLACE: str(tmp_path / "cache")}) is None


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path, mode: int) -> None:
    folder = keep_programs({PLACE: str(tmp_path / "cache")})
    assert folder is not None
    for each in (folder, folder.parent):
        each.chmod(mode)
        assert keep_programs({PLACE: str(tmp_path / "cache")}) is None
        each.chmod(0o700)
    assert keep_programs({PLACE: str(tmp_path / "cache")}) == folder


def test_what_a_killed_process_left_is_taken_out(tmp_path: Path) -> None:
    folder = keep_programs({PLACE: str(tmp_path)})
    assert folder is not None
    for name in ("half-cache", "whole-cache", "whole-atime"):
        (folder / name).write_bytes(b"x")
    assert keep_programs({PLACE: str(tmp_path)}) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["whole-atime", "whole-cache"]


@pytest.mark.jax
@pytest.mark.slow
def test_a_second_run_compiles_nothing(tmp_path: Path) -> None:
    def compile_for(place: str) -> int:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        done = subprocess.run(
            [sys.executable, "-m", "oracle", "verify", str(RECORD), "--verbose"],
            env={**environment, PLACE: place, "JAX_LOG_COMPILES": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return count_compiled(done.stderr)

    first = compile_for(str(tmp_path))
    assert first > 0
    assert compile_for(str(tmp_path)) == 0
    assert compile_for("") == first
