"""An edited port in the place of the real one, for as long as something is run."""

from __future__ import annotations

import contextlib
import hashlib
import linecache
import sys
from collections.abc import Iterator
from types import ModuleType

from oracle.selftest.fault import Fault, edit_source


def compile_port(source: str, *, name: str) -> ModuleType:
    """A module of its own from source. Its lines can be read in tracebacks and by AutoGraph.

    Args:
        source: the edited source of a port.
        name: what the module is called: `tf_models.explicit_state`.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    path = f"<seeded {name} {digest}>"
    # Without a time of change, linecache keeps it though there is no such file.
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    module = ModuleType(name)
    module.__file__ = path
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    return module


@contextlib.contextmanager
def seed_fault(fault: Fault) -> Iterator[ModuleType]:
    """Within the context, whatever runs the port by its name runs the one with the fault.

    Raises:
        FaultError: if the fault's edits no longer apply.
    """
    name = f"tf_models.{fault.module}"
    module = compile_port(edit_source(fault), name=name)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield module
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
