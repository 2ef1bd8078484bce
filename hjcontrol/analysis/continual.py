r"""What does a new task move? Gibbs weights, overlap of gradients, forgetting measured.

    d f/d b_j = pi_j,  d f/d W_j = pi_j x          an atom moves as far as the new task gives it weight
    weight      w_j = mean of pi_j over a task's inputs        overlap = sum_j min(w_j old, w_j new)
    pull        dL_old = -lr g_old.g_new + O(lr^2)             what one step of the new task does
    forgetting  F_i = max over i <= k < T of R[k, i] - R[T, i],    R[k, i]: accuracy on i after task k

The overlap lies in [0, 1]: 0 where no atom serves both tasks, 1 where all serve both alike. The overlap
is of one state of the weights; forgetting is what was measured after training. Nothing here
is a bound.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Quantity, Record, Told, figure
from hjcontrol._ground.shown import Shown
from hjcontrol.layers import ClassHead
from hjcontrol.networks.trained import AnyClassifier, head_of

__all__ = ["Forgetting", "Overlap", "Pull", "forgetting", "overlap", "pull"]


def __dir__() -> list[str]:
    return __all__


class Overlap(Told, Shown):
    """Mean Gibbs weights of every atom on two tasks."""

    old: Float[Array, " atoms"]
    new: Float[Array, " atoms"]

    @property
    def shared(self) -> Float[Array, "*batch"]:
        """`sum_j min(old_j, new_j)`: the part of the weight that falls on the same atoms."""
        return jnp.sum(jnp.minimum(self.old, self.new))

    def moved(self, threshold: float = 0.01) -> list[int]:
        """Atoms that the old task uses and the new one gives more than `threshold` of its weight."""
        both = (self.old > 1 / (2 * self.old.size)) & (self.new > threshold)
        return np.flatnonzero(np.asarray(both)).tolist()

    def as_record(self) -> Record:
        """What this result says of itself."""
        moved = self.moved()
        shown = ", ".join(map(str, moved[:8])) + (", ..." if len(moved) > 8 else "")
        return Record(
            "Overlap",
            f"{figure(self.shared)} of the new task's weight falls on the old task's atoms",
            facts={
                "atoms moved": f"{len(moved)} of {self.old.size}" + (f" ({shown})" if moved else "")
            },
        )


@admits()
def overlap(model: AnyClassifier, old: Float[Array, "m d"], new: Float[Array, "n d"]) -> Overlap:
    """Which atoms serve the inputs of both tasks.

    **Raises:** `ValueError` for inputs without a sample axis, or without samples.
    """
    for name, x in (("old", old), ("new", new)):
        if x.ndim < 2 or x.shape[0] == 0:
            raise ValueError(
                f"overlap: `{name}` must be (samples, ...), not empty; found {x.shape}."
            )
    head = model.head if isinstance(model, ClassHead) else head_of("overlap", model)
    mean = lambda x: jnp.mean(jax.vmap(head.weights)(x), axis=0)
    return Overlap(mean(old), mean(new))


class Pull(Told, Shown):
    """What a small step down the new task's loss does to the old one's: first order, not a bound."""

    inner: Float[Array, ""]  # g_old . g_new
    cosine: Float[Array, ""]

    def change(self, rate: float) -> Float[Array, ""]:
        """First-order change of the old loss under `weights - rate * g_new`."""
        return -rate * self.inner

    def as_record(self) -> Record:
        """What this result says of itself."""
        verb = "helps" if float(self.inner) > 0 else "harms"
        return Record(
            "Pull",
            f"a step on the new task {verb} the old one",
            facts={"cosine": self.cosine, "d L_old": f"{figure(-self.inner)} x rate"},
        )


def pull(
    loss: Callable[[PyTree[Array], Any], Float[Array, ""]],
    weights: PyTree[Array],
    old: Any,
    new: Any,
) -> Pull:
    """Overlap of the gradients of `loss(weights, task)` at two tasks, for any network's weights."""
    g_old, g_new = (jax.grad(loss)(weights, task) for task in (old, new))
    inner = lambda a, b: sum(
        jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    both = inner(g_old, g_new)
    size = jnp.sqrt(inner(g_old, g_old) * inner(g_new, g_new))
    return Pull(both, jnp.where(size > 0, both / jnp.where(size > 0, size, 1.0), 0.0))


class Forgetting(Told, Shown):
    """Accuracies `R[k, i]` on task `i` after training on tasks `0 .. k`."""

    accuracy: Float[np.ndarray, "tasks tasks"]

    @property
    def forgotten(self) -> Float[np.ndarray, " earlier"]:
        """For every task but the last: its best accuracy since it was learnt, less its final one."""
        last = len(self.accuracy) - 1
        return np.array(
            [self.accuracy[i:last, i].max() - self.accuracy[last, i] for i in range(last)]
        )

    @property
    def final(self) -> float:
        """Mean accuracy over all tasks at the end."""
        return float(self.accuracy[-1].mean())

    def as_record(self) -> Record:
        """What this result says of itself."""
        lost = ", ".join(f"{a:.3f}" for a in self.forgotten[:12])
        tasks = range(len(self.accuracy))
        row = lambda k: (
            {"after": f"task {k}"}
            | {f"task {i}": Quantity(self.accuracy[k, i], 3) for i in list(tasks)[:8]}
        )
        return Record(
            "Forgetting",
            f"mean accuracy at the end {figure(self.final, 3)}",
            facts={"forgotten": lost},
            rows={"accuracy by task after each training": [row(k) for k in tasks]},
        )


def forgetting(
    model: Any,
    tasks: Sequence[Any],
    fit: Callable[[Any, Any], Any],
    accuracy: Callable[[Any, Any], float | Float[Array, ""]],
) -> Forgetting:
    """Train on the tasks one after the other and measure every task after every training.

    `fit(model, task)` returns the trained model; `accuracy(model, task)` a share. Both are the
    caller's, and any network's.

    **Raises:** `ValueError` for fewer than two tasks.
    """
    if len(tasks) < 2:
        raise ValueError(f"forgetting: at least two tasks are needed; found {len(tasks)}.")
    rows = []
    for task in tasks:
        model = fit(model, task)
        rows.append([float(accuracy(model, other)) for other in tasks])
    return Forgetting(np.array(rows))
