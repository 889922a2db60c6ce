"""A process of the self-test: `python -m oracle.selftest.worker`, requests and replies as lines of JSON."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from typing import Any

import msgspec


def main() -> None:
    """Serve requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    # What the frameworks print must not end up among the replies.
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        try:
            answer = {"done": [msgspec.to_builtins(result) for result in serve(json.loads(line))]}
        except Exception:
            answer = {"error": traceback.format_exc()}
        replies.write(json.dumps(answer) + "\n")


def serve(request: Mapping[str, Any]) -> list[Any]:
    """Do what is asked: `{"do": "correct", ...}` or `{"do": "fault", ...}`, with its arguments."""
    arguments = {name: value for name, value in request.items() if name != "do"}
    if request["do"] == "correct":
        from oracle.selftest.correct import check_correct

        results = check_correct(**arguments)
        _forget()
        return results
    from oracle.selftest.trial import try_fault

    return [try_fault(**arguments)]


def _forget() -> None:
    """Let go of what was compiled: no other right port will need it."""
    from oracle.frameworks import import_jax, import_tensorflow
    from oracle.run_jax import compile_step

    compile_step.cache_clear()
    import_jax().clear_caches()
    import_tensorflow().keras.backend.clear_session()


if __name__ == "__main__":
    main()
