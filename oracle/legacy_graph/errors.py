"""What can be wrong with a graph, each with a code that `oracle explain` explains."""

from __future__ import annotations

from oracle.errors import OracleError


class GraphError(OracleError):
    """A graph that cannot be read, understood or repaired. Its message begins with the code.

    Args:
        code: the stable code, as `G101`.
        message: what, where, and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
