"""A report as JUnit XML: a suite for each port, a test for each tensor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from oracle.compare import Comparison
from oracle.report.verdict import explain_row, name_port, state_account, state_tolerance, state_verdict

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(comparisons: Sequence[Comparison]) -> str:
    """The report as JUnit XML, as CI systems read it."""
    root = ElementTree.Element("testsuites", name="oracle compare")
    for comparison in comparisons:
        _add_suite(root, comparison)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_suite(root: ElementTree.Element, comparison: Comparison) -> None:
    name = name_port(comparison)
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=name,
        tests=str(max(1, len(comparison.rows))),
        failures=str(len(comparison.findings)),
        errors=str(int(not comparison.rows)),
    )
    if not comparison.rows:
        test = ElementTree.SubElement(suite, "testcase", classname=name, name="port")
        error = ElementTree.SubElement(test, "error", message=clean(state_verdict(comparison)))
        if comparison.failure is not None:
            error.text = clean(comparison.failure.traceback)
    if said := state_account(comparison):
        ElementTree.SubElement(suite, "system-out").text = clean("\n".join(said))
    for row in comparison.rows:
        test = ElementTree.SubElement(suite, "testcase", classname=name, name=row.name)
        if row.status != "match":
            failure = ElementTree.SubElement(test, "failure", type=row.status)
            failure.set("message", clean(explain_row(row)))
            failure.text = state_tolerance(comparison)


def clean(text: str) -> str:
    """Leave out the control characters that XML cannot hold."""
    return _NOT_XML.sub("", text)
