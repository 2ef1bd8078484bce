"""`hjcontrol list`: what there is, by name: layers, architectures, solvers, costs, sets, claims.

`hjcontrol layers` and `hjcontrol architectures` are the same lists under their first names.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import hjcontrol as hj
from hjcontrol._ground.record import figure
from hjcontrol.cli.command import Answer, Command
from hjcontrol.cli.schema import flag, one_of, option
from hjcontrol.cli.terminal import Screen

Row = Mapping[str, Any]


class Kind(NamedTuple):
    """One list: its heading, its rows, what to do next; the columns that a terminal shows, and its
    page in the docs, if there is one."""

    heading: str
    rows: Callable[[], list[Row]]
    hint: str
    columns: tuple[str, ...] | None = None
    page: Callable[[], str] | None = None


def _layers() -> list[Row]:
    from hjcontrol.layers.registry import HEADINGS, table

    return [dict(zip(HEADINGS, row, strict=True)) for row in table()]


def _architectures() -> list[Row]:
    from hjcontrol.networks.architectures.registry import HEADINGS, table

    return [dict(zip(HEADINGS, row, strict=True)) for row in table()]


def _page() -> str:
    from hjcontrol.networks.architectures.page import markdown

    return markdown()


def _solvers() -> list[Row]:
    from hjcontrol.solvers.selection import capabilities

    return [{"name": row.pop("method"), **row} for row in capabilities()]


def _claims() -> list[Row]:
    from hjcontrol.reproduction import CLAIMS

    return [{"name": c.id, "title": c.title, "verdict": c.recorded} for c in CLAIMS]


def _of_control(family: str) -> list[Row]:
    """Costs or sets as PROBLEM.toml names them."""
    from hjcontrol.cli.stated_problem import fields_of, kinds

    found = kinds(getattr(hj.control, family)).items()
    return [{"name": n, "takes": ", ".join(fields_of(k)), "is": _first(k)} for n, k in found]


def _first(kind: type) -> str:
    """The first sentence of a docstring, its formula written out."""
    words = " ".join((kind.__doc__ or "").split()).split(". ")[0].rstrip(".") + "."
    for mark, plain in (
        (r"\\t?frac\{(.*?)\}\{(.*?)\}", r"\1/\2 "),
        (r"\\(\w+)", r"\1"),
        (r"[$`{}\\]", ""),
    ):
        words = re.sub(mark, plain, words)
    return words


KINDS = {
    "layers": Kind(
        "Layers: value(z) = max over p in C of p.z - eps Omega(p)",
        _layers,
        "Check an answer of your own: hjcontrol certify CANDIDATE.npz --layer NAME",
        ("name", "argmax", "domain", "regulariser", "modulus/eps"),
    ),
    "architectures": Kind(
        "Architectures: V_t + H(x, grad V) = viscosity Lap V",
        _architectures,
        "Is the backward pass of one right? hjcontrol verify --architecture NAME",
        page=_page,
    ),
    "solvers": Kind(
        "Solvers, and what each declares",
        _solvers,
        "Solve a problem with one: hjcontrol solve PROBLEM.toml --solver NAME",
        ("name", "sets", "asks", "minibatch", "flows", "couples", "terminal"),
    ),
    "costs": Kind(
        "Running costs, as keys of [costs] in PROBLEM.toml",
        partial(_of_control, "AbstractRunningCost"),
        "As a table, or as the first number: [costs] ridge = 1e-3",
    ),
    "sets": Kind(
        "Control sets, as the kind of [control-set] in PROBLEM.toml",
        partial(_of_control, "AbstractControlSet"),
        'As a table: [control-set] kind = "box", lower = -1, upper = 1',
    ),
    "claims": Kind(
        "Claims of the theory, and what the check of each found",
        _claims,
        "Check one again: hjcontrol claims --only NAME",
    ),
}


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `list` is to do."""

    what: str = option(
        dataclasses.MISSING, one_of(KINDS, "list"), ", ".join(KINDS), "WHAT", kind="argument"
    )
    names: bool = flag("names only, one per line, for scripts")
    markdown: bool = flag("the list as Markdown")


@dataclasses.dataclass(frozen=True)
class Layers:
    """What `layers` is to do."""

    what: ClassVar[str] = "layers"
    markdown: ClassVar[bool] = False
    names: bool = flag("names only, one per line, for scripts")


@dataclasses.dataclass(frozen=True)
class Architectures:
    """What `architectures` is to do."""

    what: ClassVar[str] = "architectures"
    names: bool = flag("names only, one per line, for scripts")
    markdown: bool = flag("the page of the docs, docs/architectures.md")


def run(asked: Asked | Layers | Architectures, screen: Screen) -> Iterator[Answer]:
    """The rows of one list, all of them, words folded and not cut."""
    kind = KINDS[asked.what]
    rows = kind.rows()
    if asked.markdown:
        from hjcontrol.reporting.markdown import table

        screen.line("\n".join(table(rows)) if kind.page is None else kind.page().rstrip("\n"))
    elif asked.names:
        screen.line("\n".join(row["name"] for row in rows))
    else:
        columns = kind.columns or tuple(rows[0])
        screen.table(kind.heading, [{c: figure(row[c]) for c in columns} for row in rows])
        screen.line(f"\n{kind.hint}")
    yield Answer({asked.what: rows}, None)


def _command(name: str, help: str, schema: type) -> Command:
    return Command(name, help, schema, run, page=None, doubles=False)


LIST = _command(
    "list",
    """List what there is by name: layers, architectures, solvers, costs, sets or claims.

    The names are those that options and PROBLEM.toml take.
    """,
    Asked,
)
LAYERS = _command(
    "layers",
    """Table of the layers: what each computes, over which set, with which regulariser.

    Each is `value(z) = max over p in C of p.z - eps Omega(p)`; the layer is the argmax. The same as
    `hjcontrol list layers`.
    """,
    Layers,
)
ARCHITECTURES = _command(
    "architectures",
    """Table of the architectures: drift, Hamiltonian, viscosity, what is exact, what only structural.

    Each discretises `V_t + H(x, grad V) = viscosity Lap V`, one stage per step of depth. The same as
    `hjcontrol list architectures`.
    """,
    Architectures,
)
