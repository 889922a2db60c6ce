"""One side in a process of its own: `python -m oracle.worker tf` or `jax`; or both in one: `live`.

Requests come as lines of JSON on standard input, replies go as lines of JSON to the original standard
output; cases and records pass through files. The framework is imported at once, while the other process
imports the other one.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

import msgspec

from oracle import errors
from oracle.case import read_case
from oracle.decoding import DecodeOptions, write_decoding
from oracle.errors import OracleError
from oracle.hearing import write_hearing
from oracle.mesh import parse_mesh
from oracle.record import read_record, write_record


def main() -> None:
    """Serve requests until standard input ends."""
    (side,) = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    # What the framework prints must not end up among the replies.
    os.dup2(2, 1)
    _import_side(side)
    for line in sys.stdin:
        _reply(replies, json.loads(line))
    if side != "live":
        # The frameworks take a second to take themselves apart. A user's own code may have plans for its end.
        sys.stderr.flush()
        os._exit(0)


def _import_side(side: str) -> None:
    from oracle.frameworks import import_jax, import_tensorflow, import_tfa

    # A framework's million objects stay. To look through them for garbage, again and again while they are
    # made and for every few of a model's, takes a quarter of the time.
    gc.disable()
    try:
        if side == "jax":
            import_jax()
        elif side == "tf":
            import_tensorflow()
            import_tfa()
    except OracleError:
        # A request that needs it will say so.
        return
    finally:
        gc.freeze()
        gc.enable()


def _reply(replies: TextIO, request: Mapping[str, Any]) -> None:
    try:
        answer: dict[str, Any] = {"done": _serve(request)}
    except OracleError as error:
        answer = {
            "error": _name_kind(error),
            "message": str(error),
            "traceback": traceback.format_exc(),
        }
    except Exception:
        answer = {"error": "", "message": "", "traceback": traceback.format_exc()}
    replies.write(json.dumps(answer) + "\n")


def _name_kind(error: OracleError) -> str:
    """The error's class, or the nearest of its bases that the calling process knows without our modules."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def _serve(request: Mapping[str, Any]) -> dict[str, Any]:
    if request["do"] == "run":
        case = read_case(request["case"])
        names = ("model", "mode", "dtype", "repeats", "jitter", "sums_in_sequence", "path")
        options = {name: request[name] for name in names if name in request}
        if "mesh" in request:
            options["mesh"] = parse_mesh(request["mesh"])
        if request["side"] == "tf":
            from oracle.run_tf import run_port as run
        else:
            from oracle.run_jax import run_oracle as run
        write_record(run(case, **options), request["record"])
        return {}
    if request["do"] == "decode":
        decoding_options = DecodeOptions(**request["options"])
        case = read_case(request["case"])
        if request["side"] == "tf":
            from oracle.run_tf import decode_port

            decoding = decode_port(
                case, model=request["model"], mode=request["mode"], options=decoding_options
            )
        else:
            from oracle.run_jax import decode_oracle

            decoding = decode_oracle(case, options=decoding_options)
        write_decoding(decoding, request["decoding"])
        return {}
    if request["do"] == "hear":
        if request["side"] == "tf":
            from oracle.run_tf import hear_port as hear
        else:
            from oracle.run_jax import hear_oracle as hear
        sides = {name: read_record(request[name]) for name in ("port", "oracle")}
        hearing = hear(read_case(request["case"]), **sides, seed=request["seed"])
        write_hearing(hearing, request["hearing"])
        return {}
    if request["do"] == "trace":
        from oracle.run_tf import trace_port

        write_record(trace_port(read_case(request["case"]), model=request["model"]), request["trace"])
        return {}
    if request["do"] in ("localise", "explain"):
        from oracle.insight import explain_port, localise_port

        names = ("port", "oracle", "trace")
        sides: dict[str, Any] = {name: read_record(request[name]) for name in names if name in request}
        case = read_case(request["case"])
        if request["do"] == "explain":
            answer: Any = explain_port(case, **sides)
        else:
            answer = localise_port(case, path=request["path"], **{"trace": None, **sides})
        Path(request["answer"]).write_bytes(msgspec.msgpack.encode(answer))
        return {}
    if request["do"] == "live":
        from oracle.live_port import record_live, write_records

        names = ("dtype", "mode", "seed", "witness", "localise", "explain")
        options = {name: request[name] for name in names}
        write_records(record_live(request["target"], **options), request["folder"])
        return {}
    if request["do"] == "diagnose":
        from oracle.live_diagnosis import diagnose_live

        findings = diagnose_live(request["target"], seed=request["seed"])
        Path(request["findings"]).write_bytes(msgspec.json.encode(findings))
        return {}
    raise ValueError(f"no such request: {request}")


def raise_reply(answer: Mapping[str, Any]) -> NoReturn:
    """Raise in the calling process what a worker's reply says it raised."""
    kind = getattr(errors, answer["error"], None) if answer["error"] else None
    if kind is None:
        raise RuntimeError(f"a worker process failed:\n{answer['traceback']}")
    raise kind(answer["message"])


if __name__ == "__main__":
    main()
