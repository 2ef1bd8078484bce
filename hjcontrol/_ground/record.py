"""What a result says of itself, once: terminal, notebook, page and Markdown are made from it.

    title       headline (one sentence)       verdict       facts (at most three lead)
    rows        tables, each a list of rows   pictures      functions that draw
    detail      records below                 provenance    command, seed, versions, device

Numbers stay numbers until a renderer writes them. A picture is drawn when a renderer asks for it.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

Tone = Literal["good", "partial", "bad", "plain"]  # what a verdict means, for its colour


class Quantity(NamedTuple):
    """A number with the digits in which it is read, and its unit."""

    value: Any
    digits: int = 4
    unit: str = ""

    def __str__(self) -> str:
        return figure(self)


class Mark(NamedTuple):
    """A word with what it means, for its colour."""

    word: str
    tone: Tone = "plain"

    def __str__(self) -> str:
        return self.word


Value = (
    Any  # words, numbers (also NumPy's and JAX's scalars), Quantity, Mark, lists and tables of them
)


class Picture(NamedTuple):
    """`draw()` returns matplotlib axes, an `Svg` of them, or markup that is safe to place in a page."""

    caption: str
    alt: str
    draw: Callable[[], Any]


class Record(NamedTuple):
    """See the file's table. `lead`: names of up to three facts, the numbers that a page begins with;
    `trace`: numbers in the order of a run, drawn small beside the headline."""

    title: str
    headline: str
    verdict: str | None = None
    tone: Tone = "plain"
    facts: Mapping[str, Value] = {}  # never written to
    lead: Sequence[str] = ()
    rows: Mapping[str, Sequence[Mapping[str, Value]]] = {}
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    detail: Sequence["Record"] = ()
    provenance: Mapping[str, str] = {}
    trace: Sequence[float] = ()

    def __str__(self) -> str:
        return _renderer("record_text").text(self)

    def _repr_html_(self) -> str:
        return _renderer("record_html").notebook(self)


class Told:
    """What has a record prints it: `str` in full, `repr` without tables, `_repr_html_` in a notebook."""

    def as_record(self) -> Record:
        """What this result says of itself."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.as_record())

    def __repr__(self) -> str:
        try:
            return str(self.as_record()._replace(rows={}, detail=(), notes=()))
        except Exception:  # inside a trace nothing has a value, and a repr may not raise
            return _renderer("shown").block(self)

    def _repr_html_(self) -> str:
        return self.as_record()._repr_html_()


def _renderer(name: str) -> Any:
    """A module that reads records; it imports this one, so it is looked up when it is needed."""
    return importlib.import_module(f"hjcontrol._ground.{name}")


def figure(value: Any, digits: int = 4) -> str:
    """A value for a reader: numbers to `digits` significant digits, an absent one as a dash."""
    if isinstance(value, Mark):
        return value.word
    if isinstance(value, Quantity):
        shown = figure(value.value, value.digits)
        return f"{shown} {value.unit}" if value.unit and value.value is not None else shown
    if value is None:
        return "–"
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        return figure(value.item(), digits)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:d}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {figure(v, digits)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        shown = ", ".join(figure(v, digits) for v in value[:12])
        return shown + (f" and {len(value) - 12} more" if len(value) > 12 else "")
    return _float(value, digits) if isinstance(value, float) else str(value)


def _float(value: float, digits: int) -> str:
    size = abs(value)
    if size != 0 and math.isfinite(size) and not 1e-3 <= size < 1e6:
        return f"{value:.{min(digits, 3) - 1}e}" if digits <= 4 else f"{value:.{digits - 1}e}"
    return f"{value:.{digits}g}"


def one_of_many(result: Any, shape: tuple[int, ...]) -> Record:
    """The record of a batch of results: how to see one of them."""
    return Record(f"{type(result).__name__} of {shape}", "index its leaves to print one")
