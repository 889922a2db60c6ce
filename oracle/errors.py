"""What can go wrong, said so that a person knows what, where, and what to do."""

from __future__ import annotations


class OracleError(Exception):
    """A problem with what was asked for or given: bad input, a bad file, a missing package.

    The message says what was wrong, where, and what to do. The command line prints it as one line
    and exits with 2.
    """


class UsageError(OracleError):
    """An argument or a setting that cannot be used."""


class MissingPackageError(OracleError):
    """A package that is not installed, or an installed version that cannot do what was asked."""


class SpecError(OracleError):
    """A model description that contradicts itself or cannot be read."""


class CaseError(OracleError):
    """Data, weights or sizes from which no case can be made."""


class RecordError(OracleError):
    """A file that is not a record or a case, or is damaged."""


class BridgeError(OracleError):
    """Variables and leaves that do not map onto one another one to one."""


class WorkerError(OracleError):
    """A process that ran one of the sides and ended before its time."""
