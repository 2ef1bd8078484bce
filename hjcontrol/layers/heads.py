r"""Soft maxima of any network's logits, and atoms that carry a class.

    LogitHead   f(x) = lse(z(x), eps),  z any map to logits      pi = gibbs(z(x), eps)
    ClassHead   score_c(x) = lse over the atoms j of class c     share_c = sum of pi_j over them
                share = softmax(score/eps),  f = lse(score, eps) whatever the classes are

One atom a class is the usual classifier. A class with several atoms has a convex score if z is affine.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import LSE, gibbs, lse
from hjcontrol.deformation.soft_maximum import checked, floating, temperature


@admits(eps=">= 0")
class LogitHead(Shown):
    """`f(x) = lse(network(x), eps)`: the last layer of any network, through its logits."""

    held: ClassVar[tuple[str, ...]] = ("eps",)
    network: Callable
    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)

    def scores(self, x: Real[ArrayLike, "..."]) -> Float[Array, " atoms"]:
        """The network's logits of one sample.

        **Raises:** `ValueError` if they are not a vector.
        """
        return checked("LogitHead", self.network(floating(x)), axes=1)

    def __call__(self, x: Real[ArrayLike, "..."]) -> Float[Array, ""]:
        """`f(x)`."""
        z = self.scores(x)
        return lse(z, self.eps.astype(z.dtype))

    def weights(self, x: Real[ArrayLike, "..."]) -> Float[Array, " atoms"]:
        """The Gibbs weights `pi(x)`."""
        z = self.scores(x)
        return gibbs(z, self.eps.astype(z.dtype))


@admits()
class ClassHead(Shown):
    """A classifier: atoms of `head` with a class each, numbered `0 .. count - 1`.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> atoms = hj.layers.LSE(jnp.eye(3), jnp.zeros(3), 0.1)
        >>> hj.layers.ClassHead(atoms, [0, 0, 1]).count
        2
    """

    head: LSE | LogitHead
    classes: Int[Array, " atoms"]
    count: int = eqx.field(static=True)

    def __init__(self, head: LSE | LogitHead, classes: Sequence[int] | Int[ArrayLike, " n"]):
        """**Raises:** `ValueError` for a class without an atom, or classes that do not fit the atoms."""
        classes = np.asarray(classes)
        if classes.ndim != 1 or classes.dtype.kind not in "iu" or classes.size == 0:
            raise ValueError(
                f"ClassHead: one integer class an atom is needed; found shape {classes.shape}, "
                f"{classes.dtype}."
            )
        count = int(classes.max()) + 1
        missing = sorted(set(range(count)) - set(classes.tolist()))
        if classes.min() < 0 or missing:
            raise ValueError(
                f"ClassHead: classes are numbered 0 .. {count - 1}, each with an atom; found "
                f"{f'none of class {missing[0]}' if missing else f'class {classes.min()}'}."
            )
        if isinstance(head, LSE) and head.b.shape != classes.shape:
            raise ValueError(
                f"ClassHead: a class for each of {head.b.size} atoms is needed; found {classes.size}."
            )
        self.head, self.classes, self.count = head, jnp.asarray(classes), count

    @property
    def members(self) -> Bool[Array, "classes atoms"]:
        """Which atoms belong to which class, as booleans."""
        return self.classes[None, :] == jnp.arange(self.count)[:, None]

    def scores(self, x: Real[ArrayLike, "..."]) -> Float[Array, " classes"]:
        """`lse` over each class's own atoms.

        **Raises:** `ValueError` if the head has another number of atoms than there are classes for.
        """
        z = self.head.scores(x)
        if z.shape != self.classes.shape:
            raise ValueError(
                f"ClassHead: {self.classes.size} atoms have a class; the head gives {z.size} logits."
            )
        apart = jnp.where(self.members, z[None, :], -jnp.inf)
        return lse(apart, self.head.eps.astype(z.dtype), axis=1)

    def shares(self, x: Real[ArrayLike, "..."]) -> Float[Array, " classes"]:
        """The Gibbs weight of each class: its probability, at temperature `eps`."""
        return gibbs(self.scores(x), self.head.eps)

    def predict(self, x: Real[ArrayLike, "..."]) -> Int[Array, ""]:
        """The class of the largest score."""
        return jnp.argmax(self.scores(x))
