"""A figure of matplotlib's as SVG within HTML: in the page's colours, the same bytes every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from oracle.report.junit import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""What is drawn in this colour has the colour of the page's text, `currentColor`."""

_STYLE = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "figure.facecolor": "none",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "hatch.linewidth": 0.6,
    "legend.labelcolor": INK,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "gradient-oracle",
    "text.color": INK,
    # A name may hold a dollar sign.
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}

_NAMESPACE = re.compile(r"^\{[^}]*\}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@contextmanager
def styled() -> Iterator[None]:
    """What figures are drawn in: matplotlib's own defaults and ours, whatever a matplotlibrc says."""
    import matplotlib

    # Another backend would be loaded; none is used.
    theirs = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with warnings.catch_warnings():
        # A name may have letters that the font lacks; the browser has others.
        warnings.simplefilter("ignore")
        with matplotlib.rc_context({**theirs, **_STYLE}):
            yield


def render_svg(figure: Figure, *, name: str, title: str, description: str) -> str:
    """The figure as an SVG element.

    Args:
        figure: drawn, and now rendered, within `styled`.
        name: begins every id in it, so that a page can hold several figures.
        title: what it is, for those who do not see it.
        description: what it shows, for them too.
    """
    content = io.BytesIO()
    figure.savefig(content, format="svg", dpi=192, metadata={"Date": None})
    written = clean(content.getvalue().decode("utf-8"))
    root = ElementTree.fromstring(written)  # noqa: S314 (matplotlib's own)
    for parent in list(root.iter()):
        for child in list(parent):
            if _strip(child.tag) in ("metadata", "style"):
                parent.remove(child)
    used = {found for element in root.iter() for found in _refer(element)}
    for element in root.iter():
        _settle(element, name, used)
    left, top, width, height = (float(number) for number in root.attrib["viewBox"].split())
    labels = {"title": title, "desc": description}
    root.attrib = {
        "viewBox": f"{left:g} {top:g} {width:g} {height:g}",
        # Points, as pixels of CSS.
        "width": f"{width * 4 / 3:.0f}",
        "height": f"{height * 4 / 3:.0f}",
        "role": "img",
        "aria-labelledby": " ".join(f"{name}-{label}" for label in labels),
    }
    for place, (label, said) in enumerate(labels.items()):
        element = ElementTree.Element(label, id=f"{name}-{label}")
        element.text = clean(said)
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode")


def _settle(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Leave out namespaces, white space and the ids that nothing refers to; rename the others."""
    element.tag = _strip(element.tag)
    attributes = {_strip(key): value for key, value in element.attrib.items()}
    if attributes.get("id") not in used:
        attributes.pop("id", None)
    for key, value in attributes.items():
        if key == "id":
            attributes[key] = f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            attributes[key] = f"#{name}-{value[1:]}"
        else:
            renamed = _REFERENCE.sub(rf"url(#{name}-\1)", value)
            attributes[key] = renamed.replace(INK, "currentColor").replace("'DejaVu Sans', ", "")
    element.attrib = attributes
    if element.tag != "text":
        element.text = None
    element.tail = None


def _refer(element: ElementTree.Element) -> Iterator[str]:
    """The ids that an element refers to."""
    for key, value in element.attrib.items():
        yield from _REFERENCE.findall(value)
        if _strip(key) == "href" and value.startswith("#"):
            yield value[1:]


def _strip(name: str) -> str:
    return _NAMESPACE.sub("", name)
