"""What a run was made on: the machine, its state, and the commit of this project."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from oracle.frameworks import installed_version

CPUS = "CPUs that may be used"

LOAD = "load at the start"
"""As the system averages it over one, five and fifteen minutes."""


def describe_machine() -> dict[str, str]:
    """The machine, as far as it decides about speed."""
    found = {
        "system": platform.platform(),
        "processor": _read_field(Path("/proc/cpuinfo"), "model name") or platform.processor() or "?",
        "CPUs": str(os.cpu_count()),
        CPUS: str(count_cpus()),
        "memory": _read_field(Path("/proc/meminfo"), "MemTotal") or "?",
        "python": platform.python_version(),
    }
    if hasattr(os, "getloadavg"):
        found[LOAD] = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    return found


def count_cpus() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_commit() -> str:
    """The commit of this project's source, `+` behind it if it was changed; else the version."""
    root = Path(__file__).parent.parent
    found = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        command = ["git", "-C", str(root), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            break
        if done.returncode != 0:
            break
        found.append(done.stdout.strip())
    if len(found) < 2:
        return f"gradient-oracle {installed_version('gradient-oracle')}"
    return found[0] + ("+" if found[1] else "")


def _read_field(path: Path, name: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
