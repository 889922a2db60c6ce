"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

Precision = Literal["f64", "f32", "both"]
Mode = Literal["eager", "function", "xla", "v1"]
OutputFormat = Literal["text", "json", "junit", "github"]

Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")]
