"""`oracle models` and `oracle doctor`."""

from __future__ import annotations


def models() -> int:
    """List what can be compared: each port with its modes and its spec."""
    from oracle.listing import list_models

    print(list_models(), end="", flush=True)
    return 0


def doctor() -> int:
    """Report versions, devices and precision settings, and what is missing for which command."""
    from oracle.doctor import examine

    report, healthy = examine()
    print(report, end="", flush=True)
    return 0 if healthy else 2
