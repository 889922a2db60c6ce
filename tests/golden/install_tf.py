"""Set up real TensorFlows of other times: virtual environments, kept in the user's cache.

    python -m tests.golden.install_tf tf2.4      # prints the environment's interpreter
    python -m tests.golden.install_tf            # lists those there are

Each needs a CPython that TensorFlow had wheels for, from pyenv or from the PATH. A machine without it cannot
have that TensorFlow; what needs it is skipped there, with that reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """A TensorFlow: the CPython that it runs on, and what pip installs."""

    python: str
    requirements: tuple[str, ...]


ENVIRONMENTS = {
    "tf1.15": Environment("3.7", ("tensorflow==1.15.5", "numpy<1.19", "protobuf<3.21", "h5py<3")),
    "tf2.4": Environment("3.8", ("tensorflow==2.4.4", "protobuf<3.21")),
    "tf2.8": Environment("3.10", ("tensorflow==2.8.4", "numpy<2", "protobuf<3.21")),
    "tf2.11": Environment("3.10", ("tensorflow==2.11.1", "numpy<2")),
    "tf2.15": Environment("3.11", ("tensorflow==2.15.1",)),
    "newest": Environment("3.13", ("tensorflow>=2.21",)),
}


class NoPythonError(Exception):
    """There is no CPython of the version on this machine."""


def find_python(version: str) -> Path:
    """The newest CPython of a version from pyenv, or the one on the PATH.

    Raises:
        NoPythonError: if there is none.
    """
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = sorted(root.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    on_path = shutil.which(f"python{version}")
    for candidate in [*map(str, candidates), *([on_path] if on_path else [])]:
        # pyenv's shims are there for versions that are not.
        answer = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.stdout.strip() == version:
            return Path(candidate)
    raise NoPythonError(f"no CPython {version} here (pyenv install {version})")


def folder_of(name: str) -> Path:
    """Where an environment is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "gradient-oracle" / name.replace("tf1.15", "tf115")


def find_interpreter(name: str) -> Path | None:
    """The interpreter of an environment that was set up before, or None."""
    interpreter = folder_of(name) / "bin" / "python"
    return interpreter if (folder_of(name) / "complete").is_file() and interpreter.exists() else None


def install(name: str) -> Path:
    """Set an environment up, unless it is there. Returns its interpreter.

    Raises:
        NoPythonError: if there is no CPython for it.
        subprocess.CalledProcessError: if pip fails.
    """
    found = find_interpreter(name)
    if found is not None:
        return found
    environment, folder = ENVIRONMENTS[name], folder_of(name)
    python = find_python(environment.python)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(python), "-m", "venv", "--clear", str(folder)], check=True)
    interpreter = folder / "bin" / "python"
    pip = [str(interpreter), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *environment.requirements], check=True, stdout=sys.stderr)
    subprocess.run([str(interpreter), "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL)
    (folder / "complete").touch()
    return interpreter


def main(arguments: list[str]) -> int:
    """Set up the environments that are named, or list them."""
    for name in arguments or ENVIRONMENTS:
        if name not in ENVIRONMENTS:
            print(f"no environment {name!r}; there are {', '.join(ENVIRONMENTS)}", file=sys.stderr)
            return 2
        if not arguments:
            print(f"{name}: {find_interpreter(name) or 'not set up'}")
            continue
        try:
            print(install(name))
        except NoPythonError as error:
            print(f"skipped: {name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
