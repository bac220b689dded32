"""From a matplotlib figure to an SVG element of the page.

The element takes its colours and its font from the page (CSS variables, so light and dark need no second
picture), keeps text as text, has no ids but its own, and is the same bytes for the same numbers. Drawing uses
matplotlib's objects only: no pyplot and no state that outlives the call.
"""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from matplotlib import style
from matplotlib.figure import Figure

WIDTH = 480  # units of the viewBox: about the width of a column on a desk, a little more than a telephone's

# Colours nobody draws with stand for the page's variables and are replaced after drawing.
INK, MUTED, RULE = "#a0b0c1", "#a0b0c2", "#a0b0c3"
FIRST, SECOND, THIRD = "#a0b0c4", "#a0b0c5", "#a0b0c6"
PAPER = "#a0b0c7"
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", FIRST: "first", SECOND: "second", THIRD: "third", PAPER: "card"}
LATIN = 0x250  # the end of the letters that the pictures' font and the page's both have
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "palavra",
    "text.parse_math": False,
    "font.size": 12.5,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the layout is the same everywhere
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12.5,
    "axes.titlesize": 12.5,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0.8,
}

Arguments = ParamSpec("Arguments")
Draw = Callable[Concatenate[Figure, Arguments], str]


def picture(name: str, *, height: float) -> Callable[[Draw[Arguments]], Callable[Arguments, str]]:
    """Turn a function that draws in a Figure and says what it drew into one that returns the SVG."""

    def decorate(draw: Draw[Arguments]) -> Callable[Arguments, str]:
        @wraps(draw)
        def render(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
            with style.context(["default", STYLE]):
                figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
                label = draw(figure, *args, **kwargs)
                buffer = io.StringIO()
                figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
            return _inline(buffer.getvalue(), name, label)

        return render

    return decorate


def placed(svg: str, place: str) -> str:
    """The picture with ids of its own for one place of the page, where others by the same function stand too."""
    return re.sub(r"<[^>]+>", lambda tag: re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{place}-", tag[0]), svg)


def drawable(text: str, longest: int = 28) -> str:
    """A name that pictures can show: of letters that every font has, on one line, not longer than `longest`."""
    shown = "".join(c if ord(c) < LATIN and c.isprintable() else "?" for c in " ".join(text.split()))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _inline(document: str, name: str, label: str) -> str:
    """Matplotlib's SVG document as an element of a page: small, without foreign ids or global styles."""
    root = ElementTree.fromstring(document)
    referred = set(re.findall(r'(?:url\(#|href="#)([^")]+)', document))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if element.tag != "text":
            element.text = None
        attributes = {key.rpartition("}")[2]: value for key, value in element.items()}
        identity = attributes.pop("id", "")
        if identity in referred or identity.startswith("data-"):
            attributes["id"] = f"{name}-{identity.removeprefix('data-')}"
        for key in attributes.keys() & {"href", "clip-path"}:
            attributes[key] = attributes[key].replace("#", f"#{name}-")
        for key in attributes.keys() & {"d", "x", "y", "width", "height", "transform"}:
            attributes[key] = _short(attributes[key])
        if attributes.get("transform", "").startswith("rotate(-0 "):
            del attributes["transform"]
        if "style" in attributes:
            attributes["style"] = _page_style(attributes["style"])
        element.attrib = attributes
    _flatten(root)
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _short(text: str) -> str:
    """Coordinates to a tenth of a unit, on one line."""
    short = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), text)
    return " ".join(short.split())


def _page_style(text: str) -> str:
    """A style attribute in the page's colours and, for text, its font: only the size stays."""
    text = re.sub(r"font: (?:[^;]*? )?([\d.]+px)[^;]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;]*;?", "", text)
    for sentinel, variable in VARIABLES.items():
        text = text.replace(sentinel, f"var(--{variable})")
    return text.strip()


def _flatten(parent: ElementTree.Element) -> None:
    """Hoist the children of groups that say nothing; drop what is not drawn or not the page's to say."""
    kept: list[ElementTree.Element] = []
    for child in parent:
        _flatten(child)
        if child.tag == "g" and not child.attrib:
            kept += child
        elif child.tag not in ("metadata", "style") and child.get("style") != "fill: none":
            kept.append(child)
    parent[:] = kept
