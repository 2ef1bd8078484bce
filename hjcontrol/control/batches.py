"""Samples drawn without replacement, a fresh permutation each epoch.

epoch of floor(n / size) batches        the last n mod size samples of a permutation wait for the next
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.control.problem import ControlProblem


class Minibatch(Shown):
    """Where the drawing stands."""

    key: Key[Array, ""]
    order: Int[Array, " samples"]
    count: Int[Array, ""]

    def draw(self, problem: ControlProblem, size: int) -> tuple[ControlProblem, "Minibatch"]:
        """The problem on the next `size` samples, and where the drawing stands after it."""
        place = self.count % (problem.num_samples // size)
        key, draw = jax.random.split(self.key)
        order = jax.lax.cond(
            place == 0, lambda o: jax.random.permutation(draw, o), lambda o: o, self.order
        )
        batch = problem.take(jax.lax.dynamic_slice(order, (place * size,), (size,)))
        return batch, Minibatch(key, order, self.count + 1)


@admits(size=">= 1")
def minibatch(
    problem: ControlProblem, size: int | None, key: Key[Array, ""] | None, who: str
) -> Minibatch | None:
    """A drawing at its beginning; `None` for full batches.

    **Raises:** `ValueError` without a key.
    """
    if size is None:
        return None
    if key is None:
        raise ValueError(f"{who}: minibatches need `key=jax.random.key(seed)` in `solve`.")
    return Minibatch(key, jnp.arange(problem.num_samples), jnp.asarray(0))


@admits(size=">= 1")
def check_batch_size(problem: ControlProblem, size: int | None, who: str) -> None:
    """Raise `ValueError` unless `size` is `None` or a number of samples that the problem has."""
    if size is not None and not 1 <= size <= problem.num_samples:
        raise ValueError(
            f"{who}: `batch_size` must lie in 1 .. {problem.num_samples} (the samples of the "
            f"problem); found {size}."
        )
