r"""How far the soft layer at eps > 0 can be from the hard tree, point by point.

    0 <= f_eps(x) - f_0(x) <= eps log(1 + (N - 1) e^{-gap(x)/eps}) <= eps log N
    gap: of the two largest logits; N pieces
    classes: soft and hard decision agree wherever margin(x) > eps log N, N the most atoms of a class

The points whose margin is not above the bound are listed: there, and only there, a decision may change.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Record, Told
from hjcontrol._ground.shown import Shown
from hjcontrol.layers.heads import ClassHead
from hjcontrol.networks.trained import AnyClassifier, affine_head_of


class Agreement(Told, Shown):
    """One row a point: `difference` found, `bound` and the tighter `gap_bound`, `margin`; `below`: whose
    margin is at most `bound`; `changed`: whose decision differs (classes only)."""

    eps: float
    difference: np.ndarray
    bound: float
    gap_bound: np.ndarray
    margin: np.ndarray
    changed: np.ndarray

    @property
    def below(self) -> np.ndarray:
        """Numbers of the points where the margin does not exceed the bound."""
        return np.flatnonzero(self.margin <= self.bound)

    @property
    def holds(self) -> bool:
        """Whether no difference exceeds its bound and no decision changes above the margin."""
        slack = 1e-12 * (1 + float(np.abs(self.difference).max(initial=0.0)))
        quiet = not np.any(self.changed[self.margin > self.bound])
        return bool(np.all(self.difference <= self.gap_bound + slack)) and quiet

    def as_record(self) -> Record:
        """What this result says of itself."""
        below = self.below
        shown = ", ".join(map(str, below[:12])) + (" ..." if len(below) > 12 else "")
        return Record(
            f"Soft layer at eps = {self.eps:g} against the hard tree",
            "holds at every point" if self.holds else "VIOLATED",
            verdict="holds" if self.holds else "violated",
            tone="good" if self.holds else "bad",
            facts={
                "points": len(self.margin),
                "largest difference": self.difference.max(initial=0.0),
                "bound eps log N": self.bound,
                "decisions that change": int(self.changed.sum()),
                "margin at most the bound": f"at {len(below)} points: {shown or 'none'}",
            },
            lead=("largest difference", "bound eps log N", "decisions that change"),
        )


@admits()
def agreement(model: AnyClassifier, X: ArrayLike) -> Agreement:
    """Soft against hard at points `X` (n, d), for a layer or for a classifier whose atoms carry classes.

    For a layer the margin is the gap of its two largest logits and the decision its atom; for a
    classifier the margin is that of its two largest hard scores.

    **Raises:** `ValueError` for points of another shape, a single atom or class.
    """
    head = affine_head_of("agreement", model.head if isinstance(model, ClassHead) else model)
    model = model if isinstance(model, ClassHead) else head
    X = jnp.asarray(X, head.W.dtype)
    if X.ndim != 2 or X.shape[1] != head.W.shape[1]:
        raise ValueError(f"agreement: points (n, {head.W.shape[1]}) are needed; found {X.shape}.")
    logits = np.asarray(X @ head.W.T + head.b[None, :])
    eps = float(head.eps)
    if isinstance(model, ClassHead):
        soft = np.asarray(jax.vmap(model.scores)(X))
        member = np.asarray(model.members)
        logits = np.where(member, logits[:, None, :], -np.inf)  # (n, classes, atoms)
        hard, most = logits.max(axis=2), int(member.sum(axis=1).max())
        if model.count < 2:
            raise ValueError("agreement: two classes or more are needed; found one.")
        margin = _gap(hard)
        difference = (soft - hard).max(axis=1)
        inner = np.where(np.isfinite(g := _gap(logits)), g, np.inf)
        gap_bound = _gap_bound(inner, member.sum(axis=1), eps).max(axis=1)
        changed = soft.argmax(axis=1) != hard.argmax(axis=1)
    else:
        if logits.shape[1] < 2:
            raise ValueError("agreement: two atoms or more are needed; found one.")
        hard, most = logits.max(axis=1), logits.shape[1]
        difference = np.asarray(jax.vmap(model)(X)) - hard
        margin = _gap(logits)
        gap_bound = _gap_bound(margin, np.array(most), eps)
        changed = np.zeros(len(hard), bool)  # the largest logit is the largest weight at every eps
    return Agreement(eps, difference, eps * float(np.log(most)), gap_bound, margin, changed)


def _gap(z: np.ndarray) -> np.ndarray:
    """Largest less second largest along the last axis; infinite where there is no second."""
    if z.shape[-1] < 2:
        return np.full(z.shape[:-1], np.inf)
    two = np.partition(z, -2, axis=-1)[..., -2:]
    return two[..., 1] - two[..., 0]


def _gap_bound(gap: np.ndarray, count: np.ndarray, eps: float) -> np.ndarray:
    if eps == 0:
        return np.zeros(np.broadcast_shapes(gap.shape, count.shape))
    return eps * np.log1p((count - 1) * np.exp(-gap / eps))
