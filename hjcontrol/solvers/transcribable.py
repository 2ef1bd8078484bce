"""What can be transcribed, asked before anything is built."""

import jax
import jax.numpy as jnp

from hjcontrol._ground.shapes import of_drawn
from hjcontrol.control import ControlProblem
from hjcontrol.networks import Flow

SCHEMES = ("legendre", "radau")


def check_arrays(problem: ControlProblem) -> None:
    """Raise `ValueError` unless every leaf of the states and of the weights is floating."""
    weights = of_drawn(problem.init)
    states = jax.eval_shape(problem.rollout, weights)
    for what, tree in (("states", states), ("weights", weights)):
        for leaf in jax.tree.leaves(tree):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(f"Direct: {what} must be floating; found a leaf of {leaf.dtype}.")


def check_flows(problem: ControlProblem, transcription: str) -> None:
    """Raise `ValueError` for a flow that the transcription cannot express."""
    for run in problem.chain.runs:
        if not isinstance(run.stage, Flow):
            continue
        if transcription not in SCHEMES:
            raise ValueError(
                f"Direct: a Flow is transcribed by collocation; found transcription={transcription!r}. "
                "Use transcription='legendre' or 'radau'."
            )
        if run.stage.control != "constant":
            raise ValueError(
                f"Direct: a Flow's control must be constant on a piece; found {run.stage.control!r}. "
                "Cut it into more pieces: Flow.pieces(..., control='constant')."
            )
