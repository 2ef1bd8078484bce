"""Forward mode over the checkpointed backward pass of a flow: `adjoint="twice"`.

    d/ds grad J(theta + s v)        one backward pass with checkpoints, differentiated forward

What stands in the way is two inner loops of diffrax, each with a backward rule of its own: the loop over
the stages of a Runge-Kutta step, which `scan_kind="bounded"` writes out; and the loop that saves states
at times, for which the dense output is evaluated instead: the same polynomials, the same values.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

TWICE = ("reverse", "forward-over-reverse")  # derivatives of the default adjoint, written out


def goes_twice(solver: Any) -> bool:
    """Whether the solver's stages are written out."""
    return getattr(solver, "scan_kind", None) == "bounded"


def written_out(solver: Any) -> Any:
    """The solver with its loop over Runge-Kutta stages written out; itself if it has none."""
    if "scan_kind" not in {f.name for f in dataclasses.fields(solver)}:
        return solver
    return eqx.tree_at(lambda s: s.scan_kind, solver, "bounded", is_leaf=lambda a: a is None)


def at_times(solver: Any, solution: Any, times: Float[Array, " times"]) -> PyTree[Array]:
    """The states of a solve with `times`, every leaf `(times, ...)`."""
    return jax.vmap(solution.evaluate)(times) if goes_twice(solver) else solution.ys
