"""Declarations: the table of the docs is theirs, and `select` reads them."""

from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from hjcontrol.solvers import by_name, capabilities, capability_table, select
from hjcontrol.solvers.selection import admit
from tests.solvers.problems import rings


def test_the_docs_hold_the_table():
    page = Path(__file__).parents[2] / "docs" / "solvers.md"
    assert page.read_text().endswith("\n\n" + capability_table())


def test_select_takes_what_can_treat_the_problem_and_says_why():
    free, ball = select(rings()), select(rings(control_set=hj.control.L2Ball(1.0)))
    group = select(rings(control_set=hj.control.ByLeaf(W=hj.control.GroupBall(1.0))))
    assert (free.name, ball.name, group.name) == ("newton", "direct", "gradient")
    assert "vanishing row" in group.others["direct"]
    steps = hj.control.ByLeaf(b=hj.control.Nonnegative(), W=hj.control.Box(-1.0, 1.0))
    assert select(rings(control_set=steps)).name == "newton"
    assert "'bounds'; found a L2Ball" in ball.others["newton"]
    assert ball.others["gradient"] == "able"
    assert str(free).startswith("newton")
    assert "chosen" in str(free)
    ends = hj.control.TerminalConstraint(lambda x, y: x)
    assert select(rings(terminal_constraint=ends)).name == "direct"
    with pytest.raises(ValueError, match=r"no solver can treat(.|\n)*augmented"):
        select(rings(terminal_constraint=ends, control_set=hj.control.Ternary()))
    walls = hj.control.StateBall(3.0, last=3)
    assert select(rings(path=walls)).name == "direct"
    assert select(rings(samples=600, path=walls)).name == "augmented-newton"


KINDS = {
    "free": hj.control.Free(),
    "bounds": hj.control.Box(-1.0, 1.0),
    "smooth": hj.control.L2Ball(1.0),
    "convex": hj.control.GroupBall(1.0),
    "any": hj.control.Binary(),
}


def tiny(flow=False, **options):
    drift = hj.networks.Dense(2, 2)
    made = lambda: hj.networks.Flow(drift, 0.5, adjoint=diffrax.DirectAdjoint())
    stage = made() if flow else hj.networks.Residual(drift, 0.5)
    return hj.ControlProblem(
        [stage] * 2, jnp.ones((3, 2)), terminal=lambda x: jnp.sum((x - 1.0) ** 2), **options
    )


def admitted(solver, problem):
    try:
        admit(problem, solver)
    except ValueError:
        return False
    return True


def begins(solver, problem, key=None):
    """Trace a step, or build the program: nothing is compiled."""
    weights = problem.init(jax.random.key(0))
    if solver.traceable:
        run = lambda w: solver.step(problem, solver.init(problem, w, key))
        eqx.filter_eval_shape(run, weights)
    else:
        solver.init(problem, weights, key)


@pytest.mark.parametrize("row", capabilities(), ids=lambda row: row["method"])
def test_each_row_is_true_of_the_method_as_it_is_by_default(row):
    name, solver = row["method"], by_name(row["method"])
    walls = {"path": hj.control.StateBall(3.0)}
    ends = {"terminal_constraint": hj.control.TerminalConstraint(lambda x: x[0])}
    needs = (
        walls if name.startswith("augmented") else {}
    )  # it refuses a problem without constraints
    kinds = list(KINDS)
    for kind, the_set in KINDS.items():
        narrow = name == "discrete-msa" and kind != "any"  # it moves along a finite set
        wanted = not narrow and kinds.index(kind) <= kinds.index(row["sets"])
        assert admitted(solver, tiny(control_set=the_set, **needs)) == wanted, kind
    widest = KINDS[row["sets"]]
    begins(solver, tiny(control_set=widest, **needs))
    smooth = {"running": (hj.control.Ridge(0.1), hj.control.Smoothing(0.1))}
    flows = {"flow": True, "control_set": widest if name == "discrete-msa" else None}
    for what, options in (
        ("couples", smooth | needs),
        ("path", walls),
        ("terminal", ends),
        ("flows", flows | needs),
    ):
        problem = tiny(**options)
        assert admitted(solver, problem) == row[what], what
        if row[what] and what in ("path", "terminal") and not solver.traceable:
            begins(solver, problem)
    if row["minibatch"]:
        some = by_name(name, batch_size=2)
        begins(
            some, tiny(control_set=widest if name == "discrete-msa" else None), jax.random.key(1)
        )
