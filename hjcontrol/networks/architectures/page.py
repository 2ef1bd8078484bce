"""The docs page of the architectures, made from what they declare: `docs/architectures.md` is this text.

`hjcontrol architectures --markdown > docs/architectures.md` renews it; a test holds the two together.
"""

import inspect

from hjcontrol.networks.architectures.registry import ARCHITECTURES, HEADINGS, table

OPENING = """# Architectures

Made by `hjcontrol architectures --markdown` from what each architecture declares; do not edit.

Every network of this library is a chain of stages. Each architecture below is one more set of them,
with the equation $V_t + H(x, \\nabla V) = \\nu\\,\\Delta V$ that its repeated stage discretises.
Two statements hold for all of them, exactly, and are what `hj.verify` checks: backpropagation is
the costate of the control Hamiltonian $p \\cdot F_k$, and $p_k \\cdot \\delta x_k$ is one number at
every depth. What is beyond that is said in the last two columns: exact statements have a test to
roundoff, structural ones are a reading.
"""

CLOSING = """## Recurrences

`hj.networks.Tied(cell, steps)` applies one cell with the same weights at every step: depth is the
sequence's own time. There is one set of weights, so a ridge is paid once, and the gradient is the
sum over time of $\\partial H_k/\\partial\\theta$. The input of each step comes from
`ControlProblem(..., forcing=)`, leaves `(samples, steps, ...)`; it is given, so it has no costate
and is not stored again at every depth. A mask is given in the same way, as `context=`, the same at
every depth. Sequences of one problem have one length.

## Your own

A stage of your own reads a forcing or a context if its property `reads` says so; it then takes what
it reads as the third argument of `step`. A module or function of yours does with
`ModuleStage(module, reads="forcing")` and `FunctionStage(f, theta, reads="context")`. `hjcontrol
verify --architecture MODULE:OBJECT` takes all of them.
"""


def markdown() -> str:
    """The whole page."""
    cell = lambda text: text.replace("|", "\\|")
    rows = [HEADINGS, ("---",) * len(HEADINGS), *[tuple(map(cell, row)) for row in table()]]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    about = []
    for name, kind in ARCHITECTURES.items():
        text = inspect.cleandoc(kind.__doc__ or "")
        about.append(f"**{name}** (`{kind.__module__}.{kind.__name__}`). {text}\n")
    return "\n".join([OPENING, *lines, "", "## Each of them", "", *about, CLOSING])
