"""`hjcontrol architectures`: the architectures there are, with what each declares of itself."""

from typing import Annotated

import typer

from hjcontrol.cli.terminal import Screen


def architectures(
    names: Annotated[
        bool, typer.Option("--names", help="names only, one a line, for scripts")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="the page of the docs, docs/architectures.md")
    ] = False,
) -> None:
    """Table of the architectures: drift, Hamiltonian, viscosity, what is exact, what only structural.

    Each discretises `V_t + H(x, grad V) = viscosity Lap V`, one stage a step of depth.
    """
    from hjcontrol.networks import ARCHITECTURES
    from hjcontrol.networks.architectures.registry import HEADINGS, table

    screen = Screen()
    if markdown:
        from hjcontrol.networks.architectures.page import markdown as page

        screen.line(page().rstrip("\n"))
        return
    if names:
        for name in ARCHITECTURES:
            screen.line(name)
        return
    rows = [dict(zip(HEADINGS, row, strict=True)) for row in table()]
    screen.table("Architectures: V_t + H(x, grad V) = viscosity Lap V", rows, words=True)
    screen.line("\nIs the backward pass of one right? hjcontrol verify --architecture NAME")
