"""The HTML report as text: what is in it, that it loads nothing, and that nothing gets out of its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from oracle.compare import Comparison, Row
from oracle.explanation import Explanation
from oracle.report.html import render_html
from oracle.report.verdict import name_port, state_tolerance, state_verdict, summarise
from oracle.trajectory import TrajectoryComparison
from tests.oracle.report.pages import (
    BARE,
    COMMAND,
    EXPLANATION,
    FULL,
    GOOD,
    HOSTILE,
    KERNEL,
    LOCALISATION,
    RAISED,
    ROWS,
    UNEXPLAINED,
    hostile,
    trajectory,
)

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a page, with their attributes and texts; raises where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        texts: list[str] = []
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs), texts))
        if tag not in VOID:
            self._open.append((tag, texts))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"{opened} is closed by {tag}"

    def handle_data(self, data: str) -> None:
        for _, texts in self._open:
            texts.append(data)

    def find(self, tag: str, **attributes: str) -> Iterator[str]:
        for name, attrs, texts in self.elements:
            if name == tag and all(attrs.get(key.rstrip("_")) == value for key, value in attributes.items()):
                yield "".join(texts)

    def text(self) -> str:
        (body,) = self.find("body")
        return re.sub(r"\s+", " ", body)


def render(*comparisons: Comparison, **options: object) -> Page:
    return Page(render_html(comparisons, command=COMMAND, **options))


EVERYTHING = [FULL, BARE, GOOD, RAISED]
TRAJECTORIES = [("explicit_state/full, keras.Adam()", trajectory())]


def test_it_says_what_the_text_report_says() -> None:
    page = render(*EVERYTHING)
    said = page.text()
    assert f"FAIL {summarise(EVERYTHING)}" in said
    for found in (FULL, BARE, GOOD):
        assert f"{state_verdict(found)}; {state_tolerance(found)}" in said
        assert name_port(found) in page.find("h2")
    assert next(iter(page.find("title"))) == "FAIL: 1 of 4 comparisons match"
    assert list(page.find("code", id="command")) == [COMMAND]


def test_a_mismatch_has_its_cause_its_place_its_heat_maps_and_who_is_wrong() -> None:
    page = render(FULL)
    said = page.text()
    assert "Cause (C102)" in said
    assert EXPLANATION.lines[0] in said
    assert "Unpack h, c = state of a Keras layer and pass [h, c] on." in page.find("p", class_="remedy")
    assert "h, c = state" in page.find("code")
    assert "docs/causes/C102.md" in page.find("code")
    assert "9 of 9 tensors agree, and the largest error left in any is 7e-16 of its largest" in said
    assert "scale = 0.5" in said
    assert "docs/causes/C101.md, docs/causes/C301.md" in said
    assert LOCALISATION.lines[0] in said
    assert "forward decoder/cell 0 2 [4] 0.0123456789 -0.25 step/decoder/cell/c" in said
    assert "backward decoder/cell 2 1 [] None 0.0015 gradient/step/decoder/cell/h past the row's end" in said
    assert "Nothing is wrong by itself" not in said
    assert said.count("encoder/cellforwardagreesright2.2e-16-") == 1
    assert said.count("decoder/cellforwardagreeswrong0.34steps >= 1 of rows 2 and 3") == 2
    assert len(list(page.find("svg"))) == 2
    assert "not the derivative of its own: along decoder/cell/kernel" in said
    assert "-0.125 (wrong)" in said
    assert "state/encoder/h" in page.find("li")
    assert "flag repeats3-" in said


def test_where_every_layer_is_right_by_itself_it_is_said() -> None:
    right = msgspec.structs.replace(LOCALISATION, checks=LOCALISATION.checks[:1])
    said = render(msgspec.structs.replace(FULL, localisation=right)).text()
    assert "Nothing is wrong by itself" in said
    assert said.count("encoder/cellforwardagreesright") == 1


def test_the_remedy_and_the_page_are_told_once() -> None:
    lines = (*EXPLANATION.lines, "See docs/causes/C102.md.")
    said = render(
        msgspec.structs.replace(FULL, explanation=msgspec.structs.replace(EXPLANATION, lines=lines))
    ).text()
    assert said.count("Unpack h, c = state") == 1
    assert said.count("docs/causes/C102.md") == 1


def test_a_cause_twice_in_a_pair_has_its_page_once() -> None:
    best = msgspec.structs.replace(EXPLANATION.best, codes=("C102", "C102"))
    explanation = msgspec.structs.replace(EXPLANATION, best=best, others=())
    said = render(msgspec.structs.replace(FULL, explanation=explanation)).text()
    assert said.count("docs/causes/C102.md") == 1


def test_precision_that_no_candidate_is_of() -> None:
    explanation = Explanation("precision", ("The port computes as coarsely as bfloat16.",))
    said = render(msgspec.structs.replace(FULL, explanation=explanation)).text()
    assert "Cause The port computes as coarsely as bfloat16." in said
    assert "because" not in said


def test_the_nearest_is_told_once() -> None:
    lines = ("Nothing explains it.", "Nearest (C101, C301): if the decoder starts from zeros, 2 of 9 agree.")
    unexplained = msgspec.structs.replace(UNEXPLAINED, lines=lines)
    said = render(msgspec.structs.replace(FULL, explanation=unexplained)).text()
    assert said.count("the decoder starts from zeros") == 1


def test_what_was_assumed_is_said_at_the_top() -> None:
    flags = {**FULL.port.flags, "notes": "the loss is taken to be a sum\nthe cells are LSTMs"}
    page = render(msgspec.structs.replace(FULL, port=msgspec.structs.replace(FULL.port, flags=flags)))
    assert "the loss is taken to be a sum" in page.find("li")
    assert page.text().count("the cells are LSTMs") == 1


def test_no_cause_is_said_plainly() -> None:
    said = render(msgspec.structs.replace(FULL, explanation=UNEXPLAINED)).text()
    assert "No cause found" in said
    assert "Nothing in the catalogue gives the port's numbers." in said
    assert "The nearest: the decoder starts from zeros" in said
    assert "because" not in said


def test_without_localisation_and_explanation_nothing_is_said_of_them() -> None:
    page = render(BARE)
    headings = [*page.find("h3"), *page.find("h4")]
    assert headings == ["Worst elements", "Every tensor", "Environment"]
    assert not list(page.find("svg"))


def test_every_tensor_has_its_row_with_the_numbers_of_the_text_report() -> None:
    page = render(FULL)
    statuses = [
        attrs["data-status"] for tag, attrs, _ in page.elements if tag == "tr" and "data-status" in attrs
    ]
    assert statuses == [row.status for row in ROWS]
    said = page.text()
    assert (
        f"3mismatch{KERNEL}[12, 20]2.50e-01[7, 13]-0.1250.1253.00e-020.9876543211.00e-172"
        "decoder/lstm_cell/kernel:0-" in said
    )
    assert "6nonfinitegradient/encoder/cell/bias[20]-[4]nan0.5----" in said
    assert "7nonfinitegradient/projection/kernel[5, 2]-[4, 1]-inf1e-300----" in said
    assert "tolerance that would have passed, a part of the tensor's largest element (allowed: 1e-12)" in said


def test_a_float32_port_is_measured_by_the_oracles_own_error() -> None:
    said = render(
        msgspec.structs.replace(FULL, port=msgspec.structs.replace(FULL.port, dtype="float32"))
    ).text()
    assert "a multiple of the oracle's own float32 error (allowed: 8)" in said


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.status)
def test_every_status_alone(row: Row) -> None:
    found = Comparison(FULL.port, FULL.oracle, (row,))
    page = render(found)
    (word,) = set(page.find("strong"))
    assert word == ("PASS" if row.status == "match" else "FAIL")
    assert f"1 tensors: 1 {row.status}" in page.text()


def test_the_worst_come_first_and_are_few() -> None:
    rows = tuple(msgspec.structs.replace(ROWS[2], name=f"w{n}", needed=float(n)) for n in range(30))
    said = render(Comparison(FULL.port, FULL.oracle, (*rows, ROWS[5]))).text()
    assert "10 of 31 findings" in said
    worst = said[said.index("Worst elements") : said.index("Every tensor")]
    assert re.findall(r"(?:w\d+|gradient\S+)\[", worst)[:3] == ["gradient/encoder/cell/bias[", "w29[", "w28["]


def test_a_port_that_raised_shows_what_and_where() -> None:
    page = render(RAISED)
    (traceback,) = (text for text in page.find("pre") if "port.py" in text)
    assert traceback.startswith('Traceback:\n  File "port.py", line 3\n')
    assert "no tolerance" not in page.text()


def test_nothing_compared_is_no_success() -> None:
    page = render()
    assert "FAIL nothing was compared" in page.text()
    assert "FAIL nothing was compared" in render(Comparison(FULL.port, FULL.oracle, ())).text()


def test_an_oracle_that_is_inconsistent_is_said_at_the_top() -> None:
    accused = msgspec.structs.replace(FULL.witness, verdict="oracle")
    page = render(msgspec.structs.replace(FULL, witness=accused))
    alerts = list(page.find("p", class_="alert"))
    assert "The oracle is inconsistent: a defect of gradient-oracle" in alerts[0]
    assert len(alerts) == 2
    assert not list(render(FULL).find("p", class_="alert"))


def test_trajectories_are_shown_and_judged() -> None:
    page = render(GOOD, trajectories=[*TRAJECTORIES, ("the same", trajectory(parts_at=None))])
    said = page.text()
    assert "1 of 1 comparisons match; 1 of 2 trajectories agree" in said
    assert "step 40: loss: mismatch: the port has 0.025, the oracle 0.02501; a difference of 1e-05" in said
    assert len(list(page.find("svg"))) == 2
    assert "FAIL" in next(iter(page.find("p", class_="verdict")))
    assert (
        "PASS 1 of 1 trajectories agree" in render(trajectories=[("one", trajectory(parts_at=None))]).text()
    )


def test_a_trajectory_of_no_step_or_without_losses() -> None:
    assert "nothing was compared" in render(trajectories=[("none", TrajectoryComparison((), None))]).text()
    rows = tuple(msgspec.structs.replace(row, port_loss=None, oracle_loss=None, by_kind={"slot": float("inf")}) for row in trajectory(3, None).rows)  # fmt: skip
    said = render(trajectories=[("driven", TrajectoryComparison(rows, None))]).text()
    assert "no number" in said


def test_it_loads_nothing() -> None:
    text = render_html([*EVERYTHING, hostile()], command=COMMAND, trajectories=TRAJECTORIES)
    assert not re.search(r"https?:|@import|url\((?!#)", re.sub(r"&lt;.*?&gt;", "", text))
    page = Page(text)
    for tag, attrs, _ in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "form", "base", "video", "audio"}
        for key in ("src", "srcset", "href", "xlink:href", "action", "poster", "background"):
            assert attrs.get(key, "#").startswith(("#", "data:image/png;base64,")), (tag, attrs)
    (policy,) = [a["content"] for t, a, _ in page.elements if t == "meta" and a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_the_policy_names_the_script_that_is_there() -> None:
    import base64
    import hashlib

    page = render(FULL)
    (script,) = page.find("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for t, a, _ in page.elements if t == "meta" and a.get("http-equiv")]
    assert f"'sha256-{digest}'" in policy


def test_what_comes_from_outside_stays_text() -> None:
    text = render_html([hostile(), RAISED], command=HOSTILE, trajectories=[(HOSTILE, trajectory(3, 2))])
    assert "\x00" not in text
    assert "\x1b" not in text
    page = Page(text)
    assert len(list(page.find("script"))) == 1
    assert len(list(page.find("style"))) == 1
    assert not list(page.find("img"))
    assert not any("onerror" in attrs for _, attrs, _ in page.elements)
    seen = HOSTILE.replace("\x00", "").replace("\x1b", "")
    assert list(page.find("code", id="command")) == [seen]
    for place in ("th", "td", "li", "h2", "pre"):
        assert any(seen in text for text in page.find(place)), place
    assert "\\frac{1}{2}$" in page.text()


def test_half_of_a_surrogate_pair_can_be_written() -> None:
    odd = msgspec.structs.replace(FULL, left_out=("half \ud800",))
    assert "half " in render_html([odd], command="\udcff").encode("utf-8").decode()


def test_the_same_comparisons_give_the_same_page() -> None:
    first = render_html(EVERYTHING, command=COMMAND, trajectories=TRAJECTORIES)
    assert first == render_html(EVERYTHING, command=COMMAND, trajectories=TRAJECTORIES)
    assert not re.search(r"20\d\d-\d\d-\d\d", first)


def test_it_is_a_page_that_can_be_found_ones_way_in() -> None:
    page = render(*EVERYTHING, hostile(), trajectories=TRAJECTORIES)
    ids = [attrs["id"] for _, attrs, _ in page.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    for _, attrs, _ in page.elements:
        for key in ("aria-labelledby", "aria-describedby", "data-filters", "data-copies"):
            assert set((attrs.get(key) or "").split()) <= set(ids)
        if (attrs.get("href") or "").startswith("#"):
            assert attrs["href"][1:] in ids
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) <= 1
    assert next(attrs for tag, attrs, _ in page.elements if tag == "html")["lang"] == "en"
    assert all(attrs.get("scope") for tag, attrs, _ in page.elements if tag == "th")
    assert all(attrs.get("role") == "img" and attrs.get("aria-labelledby") for tag, attrs, _ in page.elements if tag == "svg")  # fmt: skip
    links = [attrs["href"] for tag, attrs, _ in page.elements if tag == "a"]
    assert links[0] == "#results"


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.jax
def test_a_port_as_it_is_checked() -> None:
    from oracle.check import Request, check
    from oracle.runner import InProcess

    with InProcess() as runner:
        request = Request(("implicit_state/exchanged", "explicit_state/full"), batch_size=2)
        bad, good = check(request, runner)
    page = render(bad, good)
    assert "FAIL 1 of 2 comparisons match" in page.text()
    assert set(page.find("strong")) == {"PASS", "FAIL"}
    assert "What the witness heard" in page.text()
