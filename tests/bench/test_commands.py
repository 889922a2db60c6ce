"""Whole commands: how long, what they compile, and that a failure has no speed."""

from __future__ import annotations

import pytest

from bench.cases import BenchCase
from bench.commands import Commands, count_compiled
from bench.workers import FailedError


def make(tmp_path, **commands):
    return Commands(tmp_path, BenchCase("latency/x", "command", commands=tuple(commands.items())))


def test_a_command_takes_as_long_as_it_takes(tmp_path):
    commands = make(tmp_path, sleep=("{python}", "-c", "import time; time.sleep(0.3)"))
    assert 0.3 < commands.run("sleep") < 60


def test_a_command_that_fails_has_no_speed(tmp_path):
    commands = make(tmp_path, fail=("{python}", "-c", "raise SystemExit('no oracle here')"))
    with pytest.raises(FailedError, match="ended with 1: no oracle here"):
        commands.run("fail")
    assert commands.count_compilations("fail") is None


def test_what_is_fetched_is_not_compiled():
    said = """
    Finished XLA compilation of jit(compute) in 0.9 sec
    Persistent compilation cache hit for 'jit_compute' with key 'jit_compute-1'
    Finished XLA compilation of jit(compute) in 0.01 sec
    Finished XLA compilation of jit(convert_element_type) in 0.02 sec
    """
    assert count_compiled(said) == 2
    assert count_compiled("nothing") == 0


@pytest.mark.jax
@pytest.mark.slow
def test_jax_says_what_it_compiles(tmp_path):
    """A program is compiled at the first run and fetched at the second."""
    program = (
        "import jax, sys\n"
        "jax.config.update('jax_enable_compilation_cache', True)\n"
        f"jax.config.update('jax_compilation_cache_dir', {str(tmp_path / 'cache')!r})\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)\n"
        "import numpy\n"
        "jax.jit(lambda a: a * 2 + 1)(numpy.ones(3))\n"
    )
    (tmp_path / "program.py").write_text(program)
    commands = make(tmp_path, run=("{python}", str(tmp_path / "program.py")))
    assert commands.count_compilations("run") == 1
    assert commands.count_compilations("run") == 0
