r"""What a layer is.

    value(z) = max over p in C of  p.z - eps Omega(p)          convex in z
    layer(z) = argmax = grad value(z)                          Danskin
    conjugate(p) = eps Omega(p) on C, +inf off it
    gap(z, p) = value(z) + conjugate(p) - p.z >= 0             zero exactly at the argmax

`eps = 0` is the hard layer: its maximisers form a face of C, reported by `face(z)`; `layer(z)` is then
the point of the face where Omega is least, which is where the argmax tends as eps -> 0+.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import checked, floating
from hjcontrol.layers.certifying import Optimality, certify
from hjcontrol.layers.program import AbstractProgram

SLACK = (
    0.5  # exponent: a violation up to dtype-eps ** SLACK is roundoff of some solver, not infinity
)


class AbstractFace(Shown):
    """The set of maximisers of one program: a point for `eps > 0`, perhaps more at `eps = 0`."""

    @abc.abstractmethod
    def support(self, direction: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The largest `p.direction` over the face: the value's one-sided derivative."""

    @property
    @abc.abstractmethod
    def unique(self) -> Bool[Array, ""]:
        """Whether the maximiser is one point."""

    @property
    @abc.abstractmethod
    def ties(self) -> Bool[Array, "*shape"]:
        """Which entries of `p` the program leaves undecided."""


class AbstractConvexLayer(Shown):
    """A layer for one sample `z`; batch with `jax.vmap`. See the file's equations.

    As a stage of a network it holds its temperature: `held` names fields that are trained only if
    asked for.
    """

    held: ClassVar[tuple[str, ...]] = ("eps",)
    eps: eqx.AbstractVar[Real[Array, ""]]
    kind: ClassVar[str | None] = None  # a row of `engines.KINDS`; None: `closed` and `cvxpy` only
    domain: ClassVar[str]
    regulariser: ClassVar[str]
    curvature: ClassVar[str]

    @property
    @abc.abstractmethod
    def modulus(self) -> Float[Array, ""]:
        """Strong convexity of `eps Omega` on C, Euclidean: `layer` is `1/modulus`-Lipschitz."""

    @abc.abstractmethod
    def value(self, z: Real[ArrayLike, "*shape"]) -> Float[Array, ""]:
        """The program's optimal value."""

    @abc.abstractmethod
    def __call__(self, z: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """The maximiser."""

    @abc.abstractmethod
    def conjugate(self, p: Real[ArrayLike, "*shape"]) -> Float[Array, ""]:
        """`eps Omega(p)` on C, `+inf` where `p` leaves C by more than the root of the roundoff unit."""

    @abc.abstractmethod
    def face(self, z: Real[ArrayLike, "*shape"]) -> AbstractFace:
        """All maximisers."""

    @abc.abstractmethod
    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """`(a, b)`, sharp, with `a eps <= value_eps(z) - value_0(z) <= b eps` for every `z`."""

    @abc.abstractmethod
    def program(self, z: Real[ArrayLike, "*shape"]) -> AbstractProgram:
        """The program at `z`, for [`certify`][hjcontrol.layers.certify]."""

    @abc.abstractmethod
    def as_cvxpy(self, z: Real[ArrayLike, "*shape"]) -> Any:
        """The program at `z` as a `cvxpy.Problem` in one variable named `p`."""

    def gap(self, z: Real[ArrayLike, "*shape"], p: Real[ArrayLike, "*shape"]) -> Float[Array, ""]:
        """Fenchel-Young gap: how much below the optimum the value of `p` lies. `+inf` outside C.

        **Raises:** `ValueError` if `p` and `z` differ in shape.
        """
        z = checked(type(self).__name__, z)
        p = floating(p).astype(z.dtype)
        if p.shape != z.shape:
            raise ValueError(
                f"{type(self).__name__}.gap: the candidate must have the shape of the logits, "
                f"{z.shape}; found {p.shape}. Batch with `jax.vmap`."
            )
        inner = jnp.sum(jnp.where(p == 0, 0.0, p) * jnp.where(p == 0, 0.0, z))  # masked: 0 * -inf
        return self.value(z) + self.conjugate(p) - inner

    def directional(
        self, z: Real[ArrayLike, "*shape"], dz: Real[ArrayLike, "*shape"]
    ) -> Float[Array, ""]:
        """One-sided derivative of `value` at `z` along `dz`: right also where the value has a kink."""
        z = checked(type(self).__name__, z)
        return self.face(z).support(jnp.asarray(dz, z.dtype))

    @renamed(tolerance="tol")
    def certify(
        self,
        z: Real[ArrayLike, "*shape"],
        candidate: Real[ArrayLike, "*shape"] | None = None,
        dual: Any = None,
        *,
        tol: Real[ArrayLike, ""] | float | None = None,
    ) -> Optimality:
        """Certificate of `candidate`, by default of the layer's own answer."""
        p = self(z) if candidate is None else candidate
        return certify(self.program(z), p, dual, tol=tol)
