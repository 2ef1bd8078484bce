r"""A start that guesses states: where a nonlinear program or a shooting begins along depth.

    x_k^i  guessed for k = 1 .. K      x_0^i  given      F_k(x_k) - x_{k+1}  need not vanish

A problem with an obstacle has a minimum on either side of it, and the states of a start decide which one
is found. A method that has no states of its own rolls out its weights, and refuses a guess.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shapes import of_drawn
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import Tree
from hjcontrol.control.problem import ControlProblem


@admits()
class Guess(Shown):
    """`hj.solve(problem, solver, init=Guess(weights, states))`.

    - `weights`: to start from; `None` has `key=` draw them.
    - `states`: `(n, K + 1, d)`; or one array `(n, ...)` per depth 0 .. K; or a function of s = k/K that
      gives one sample's state, or all samples' `(n, ...)`. The entry at depth 0 is not used.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> guess = hj.control.Guess(None, lambda s: jnp.array([s, 0.0]))
        >>> guess.weights is None
        True
    """

    weights: Tree | None
    states: Any

    def __check_init__(self):
        if self.weights is not None and not isinstance(self.weights, tuple):
            raise ValueError(
                "Guess: `weights` must be a problem's weights (a tuple, one entry per run) or None; "
                f"found {shown(self.weights)}."
            )
        deep = getattr(self.states, "ndim", 0) >= 2 or isinstance(self.states, (list, tuple))
        if not (deep or callable(self.states)):
            raise ValueError(
                "Guess: `states` must be an array (n, K + 1, d), one array per depth, or a function of "
                f"k / K; found {shown(self.states)}."
            )

    def along(self, problem: ControlProblem) -> tuple[Array, ...]:
        """The guess at every depth 0 .. K, `(n, ...)` each, the inputs at depth 0.

        **Raises:** `ValueError` for another number of states, or ones of another shape.
        """
        want = of_drawn(lambda key: list(problem.rollout(problem.init(key))))
        if any(not hasattr(s, "shape") for s in want):
            raise ValueError("Guess: states must be single arrays; found states that are trees.")
        found, depth = _listed(self.states, len(want) - 1), len(want) - 1
        if len(found) != depth + 1:
            raise ValueError(
                f"Guess: `states` needs {depth + 1} entries along depth, x_0 to x_{depth}; found "
                f"{len(found)}."
            )
        whole, made = hasattr(self.states, "shape"), [problem.inputs]
        for k, (a, s) in enumerate(zip(found[1:], want[1:], strict=True), 1):
            a = jnp.asarray(a, problem.dtype)
            # An array has its samples in front: a depth of it is not one sample's state for all.
            if a.shape != s.shape and (whole or a.shape != s.shape[1:]):
                raise ValueError(
                    f"Guess: `states` at depth {k} must have shape {s.shape}; found {a.shape}."
                )
            a = jnp.broadcast_to(a, s.shape)
            finite = np.isfinite(np.asarray(a)).reshape(len(a), -1).all(axis=1)
            if not finite.all():
                i = int(np.flatnonzero(~finite)[0])
                raise ValueError(f"Guess: `states` at depth {k} of sample {i} is not finite.")
            made.append(a)
        return tuple(made)


def _listed(states: Any, depth: int) -> list[Any]:
    if callable(states):
        return [states(jnp.asarray(k / depth)) for k in range(depth + 1)]
    if hasattr(states, "shape"):
        return [states[:, k] for k in range(states.shape[1])] if states.ndim > 1 else []
    return list(states)
