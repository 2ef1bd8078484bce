"""`hjcontrol layers`: the layers there are, as convex programs."""

from typing import Annotated

import typer

from hjcontrol.cli.terminal import Screen

COLUMNS = ("name", "argmax", "domain", "regulariser", "modulus/eps")


def layers(
    names: Annotated[
        bool, typer.Option("--names", help="names only, one a line, for scripts")
    ] = False,
) -> None:
    """Table of the layers: what each computes, over which set, with which regulariser.

    Each is `value(z) = max over p in C of p.z - eps Omega(p)`; the layer is the argmax.
    """
    from hjcontrol.layers import REGISTRY
    from hjcontrol.layers.registry import HEADINGS, table

    screen = Screen()
    if names:
        for name in REGISTRY:
            screen.line(name)
        return
    rows = [dict(zip(HEADINGS, row, strict=True)) for row in table()]
    shown = [{key: row[key] for key in COLUMNS} for row in rows]
    screen.table("Layers: value(z) = max over p in C of p.z - eps Omega(p)", shown, words=True)
    screen.line("\nCheck an answer of your own: hjcontrol certify CANDIDATE.npz --layer NAME")
