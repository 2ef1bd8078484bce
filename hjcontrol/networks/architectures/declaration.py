r"""What an architecture declares: its stages, its Hamiltonian, its viscosity, and what of that is exact.

    V_t + H(x, grad V) = nu Lap V        discretised by its stages, one per step of depth

`hamiltonian(x, p, theta, u)` and `viscosity` are numbers to compute with; `exact` and `structural` say
in words which statements hold to roundoff and which are a reading. The table of `hjcontrol
architectures`, the docs and the laws that tests hold every architecture to come from these declarations.

Whatever is declared here, the costate of training is that of the control Hamiltonian p.F_k (see
`control.hamiltonian`), exactly, for every architecture: that is what `hj.verify` checks.
"""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree

from hjcontrol._ground.shapes import of_one
from hjcontrol._ground.shown import Shown
from hjcontrol.networks.chain import Chain, Weights
from hjcontrol.networks.dense import lift, readout
from hjcontrol.networks.stage import AbstractStage, advance


class Read(NamedTuple):
    """How features enter: initial states, input sequences, context; samples in front."""

    inputs: PyTree[Array]
    forcing: PyTree[Array] = None
    context: PyTree[Array] = None


class AbstractArchitecture(Shown):
    """Stages for features of length `in_size` and as many logits as `classes`."""

    in_size: eqx.AbstractVar[int]
    classes: eqx.AbstractVar[int]
    name: ClassVar[str]
    drift: ClassVar[str]
    energy: ClassVar[str]
    noise: ClassVar[str]
    exact: ClassVar[str]
    structural: ClassVar[str]

    @abc.abstractmethod
    def stages(self) -> list[Any]:
        """Stages in order of depth, as `ControlProblem` takes them."""

    @property
    @abc.abstractmethod
    def cell(self) -> AbstractStage:
        """The stage that is repeated: the one that the Hamiltonian is of."""

    @abc.abstractmethod
    def hamiltonian(
        self, x: PyTree[Array], p: PyTree[Array], theta: PyTree[Array], u: PyTree[Array] = None
    ) -> Float[Array, ""]:
        """`H(x, p, theta)` of the equation that the cell discretises."""

    @property
    @abc.abstractmethod
    def viscosity(self) -> Float[Array, ""]:
        """The coefficient of the Laplacian in that equation."""

    def read(self, features: Float[ArrayLike, "n in"]) -> Read:
        """Features as initial states, sequences and context."""
        return Read(jnp.asarray(features))

    def ensemble(self, features: Float[ArrayLike, "n in"]) -> dict[str, Any]:
        """What `ControlProblem(**..., targets, terminal=...)` needs.

        **Raises:** `ValueError` for features of another length.
        """
        if jnp.ndim(features) != 2 or jnp.shape(features)[1] != self.in_size:
            raise ValueError(
                f"{self.name}: features of shape (n, {self.in_size}) are needed; found "
                f"{jnp.shape(features)}."
            )
        return {"stages": self.stages(), **self.read(features)._asdict()}

    def chain(self) -> Chain:
        """The stages as a chain."""
        one = jax.eval_shape(
            self.read, jax.ShapeDtypeStruct((1, self.in_size), jnp.zeros(()).dtype)
        )
        return Chain(self.stages(), *of_one(tuple(one)))

    def init(self, key: Key[Array, ""]) -> Weights:
        """Weights to start from."""
        return self.chain().init(key)


def framed(net: Any, stages: list[Any]) -> list[Any]:
    """Stages of a network's width between a lift of the features and a readout of the classes."""
    return [lift(net.in_size, net.width), *stages, readout(net.width, net.classes)]


def transport(stage: AbstractStage, x: PyTree, p: PyTree, theta: PyTree, u: PyTree = None):
    """`p.(F(x) - x)`: the Hamiltonian of a deterministic step read as Euler's with step 1."""
    moved = advance(stage, x, theta, u)
    parts = jax.tree.map(lambda q, a, b: jnp.sum(q * (a - b)), p, moved, x)
    return jax.tree.reduce(jnp.add, parts)


def rows(in_size: int) -> tuple[int, int]:
    """Steps and features a step of a sequence read off flat features: near to square, 8 x 8 of 64."""
    wide = next(d for d in range(int(np.sqrt(in_size)), 0, -1) if in_size % d == 0)
    return in_size // wide, wide


def patches(features: Float[Array, "n in"]) -> Float[Array, "n tokens size"]:
    """Square images of even side as 2 x 2 patches, 16 of 4 for 64; anything else row by row."""
    n, size = features.shape
    side = int(np.sqrt(size))
    if side * side != size or side % 2:
        return features.reshape(n, *rows(size))
    tiles = features.reshape(n, side // 2, 2, side // 2, 2)
    return jnp.moveaxis(tiles, 3, 2).reshape(n, (side // 2) ** 2, 4)
