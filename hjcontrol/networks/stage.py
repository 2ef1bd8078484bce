"""A stage: one step of a controlled dynamical system, stated for one sample.

    x_{k+1} = step(x_k, theta_k)   or   step(x_k, theta_k, u_k)          theta_k ~ init(key)

x      state, an array or a pytree of arrays (no batch axis: use `jax.vmap`)
theta  the stage's weights, any pytree of floating arrays; `()` for none
u      what is given and has no costate, if the stage `reads` it: the next entry of a forcing (an input
       sequence), or a context that stays the same at every depth (a mask)

A user's own piece becomes a stage by `as_stage`: an `eqx.Module` (its floating arrays are the
weights, but for the temperature of a convex layer), a plain function `x -> x_next`, or a pair
`(f, theta0)` with `f(x, theta) -> x_next`.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key, PyTree

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import admits
from hjcontrol._ground.interned import interned
from hjcontrol._ground.shown import Shown
from hjcontrol.networks.given import read_of
from hjcontrol.networks.held import weights_of

Reads = Literal["nothing", "forcing", "context"]


class Symmetry(Shown):
    """How the coordinates of a stage's two states may be relabelled without changing the network.

    A stage that declares one implements `relabel(theta, inward, outward)`, where each argument is a
    pair `(permutation, signs)` acting as `x -> signs * x[permutation]`.
    """

    tied: bool = eqx.field(static=True)  # input and output share one labelling (residual stages)
    odd: bool = eqx.field(static=True)  # the output's signs may be flipped


class AbstractStage(Shown):
    """One step of depth. Subclasses are final; wrap one to change it."""

    @abc.abstractmethod
    def step(self, x: PyTree[Array], theta: PyTree[Array], *given: Any) -> PyTree[Array]:
        """Next state of one sample; `given`: what the stage reads, if it reads something."""

    @abc.abstractmethod
    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Weights to start from."""

    @property
    def reads(self) -> Reads:
        """`forcing`: each such stage takes the problem's next entry; `context`: the whole of it."""
        return "nothing"

    def check(self, given: PyTree[Array]) -> None:
        """Raise `ValueError` for given data, of one sample or with samples in front, that this stage
        cannot use. Values may be traced, and are then not known."""
        del given

    @property
    def affine(self) -> bool:
        """Whether the weights are an `AffineWeights` entering only through `a = W x + b`.

        Such a stage gives `after(x, a)`, with `step(x, theta) = after(x, W x + b)`; solvers then know
        the curvature in the weights from that in `a`.
        """
        return False

    def after(self, x: PyTree[Array], a: Array) -> PyTree[Array]:
        """Next state from the state and the affine part `a = W x + b`; see `affine`."""
        raise NotImplementedError(f"{type(self).__name__} is not declared affine.")

    def symmetry(self) -> Symmetry | None:
        """Relabellings of hidden units that leave the network unchanged; `None` if not known."""
        return None

    def relabel(self, theta: PyTree[Array], inward: Any, outward: Any) -> PyTree[Array]:
        """Weights of the same stage after relabelling its two states; see `Symmetry`."""
        raise NotImplementedError(f"{type(self).__name__} declares no symmetry.")

    def refusal(self, derivative: str) -> str | None:
        """Why the stage has no derivative of the kind "reverse", "forward" or
        "forward-over-reverse", and what to do; `None` if it has."""
        del derivative
        return None

    def discretisation_error(
        self, x: PyTree[Array], theta: PyTree[Array]
    ) -> Float[Array, ""] | None:
        """By how much one sample's step misses the equation that it discretises, estimated; `None` if
        the stage discretises none, or makes no estimate."""
        del x, theta
        return None

    def forward(self) -> "AbstractStage":
        """The same stage with a derivative of the kind "forward", for its values are the same."""
        return self

    def complaint(self, x: PyTree[Array], theta: PyTree[Array], *given: Any) -> str | None:
        """Why `step` fails on some of the states `x`, leaves `(n, ...)`, and what to do; `None` if
        the stage cannot fail, or does not there. `given`: what the stage reads, samples in front."""
        del x, theta, given
        return None


@admits()
def advance(stage: AbstractStage, x: PyTree, theta: PyTree, u: PyTree = None) -> PyTree[Array]:
    """`step`, with what the stage reads."""
    return stage.step(x, theta) if stage.reads == "nothing" else stage.step(x, theta, read_of(u))


@admits()
class ModuleStage(AbstractStage):
    """A user's `eqx.Module`, called on the state. Its floating arrays are the weights, except those
    that are held.

    An array that is a hyperparameter (a temperature, a slope, a threshold) is a floating array like any
    other, whether it was given as one or made one by `eqx.field(converter=jnp.asarray)`: a solver trains
    it. To keep it as it is, hold it by `frozen`. What is held stays in the stage as a traced value, so
    a sweep over it does not compile anew.

    Held without being asked: the fields that a class names in `held`, wherever such a module stands
    inside the given one. The convex layers and `LSE` name their temperature, `held = ("eps",)`, and a
    user's class may name its own. `trainable` makes such a field a weight again.
    """

    initial: PyTree[Array]
    rest: PyTree
    given: Reads = eqx.field(static=True)

    def __init__(
        self,
        module: eqx.Module,
        reads: Reads = "nothing",
        *,
        frozen: Any = (),
        trainable: Sequence[str] = (),
    ):
        """**Arguments:**

        - `module`: the module; it is called as `module(x)`, or as `module(x, u)` with `reads`.
        - `frozen`: what is held besides: names of fields (`("alpha",)`, or `("norm.alpha",)` for one
          place), or a filter as equinox takes it, `True` for what is held: a tree of booleans, or a
          function of a leaf.
        - `trainable`: names of fields that are weights although their class holds them.

        **Raises:** `ValueError` for a module that cannot be called, a name that no floating array of
        the module has, or a filter that does not fit the module.
        """
        if not callable(module):
            raise ValueError(
                f"as_stage: a callable module is needed; {type(module).__name__} defines no __call__."
            )
        self.initial, self.rest = eqx.partition(module, weights_of(module, frozen, trainable))
        self.given = reads

    @property
    def reads(self) -> Reads:
        return self.given

    def step(self, x, theta, *u):
        dtype = jax.numpy.result_type(*jax.tree.leaves(x))  # the core runs in the state's precision
        cast = lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a
        return eqx.combine(theta, jax.tree.map(cast, self.rest))(x, *u)

    def init(self, key):
        del key
        return self.initial


class EquinoxCell(eqx.Module):
    """A recurrent cell of equinox, `cell(u, h)`, as a module of the state first, `(h, u)`."""

    cell: eqx.nn.GRUCell | eqx.nn.LSTMCell

    def __call__(self, x: PyTree[Array], u: Array) -> PyTree[Array]:
        return self.cell(u, x)


@admits()
class FunctionStage(AbstractStage):
    """A plain function of the state, or of state and weights when `initial` is given.

    With `reads`, it takes what it reads as its last argument.
    """

    function: Callable = eqx.field(static=True)
    initial: PyTree[Array]
    weighted: bool = eqx.field(static=True)
    given: Reads = eqx.field(static=True)

    def __init__(self, function: Callable, initial: PyTree | None = None, reads: Reads = "nothing"):
        self.function, self.given = interned(function), reads
        self.weighted = initial is not None
        self.initial = () if initial is None else jax.tree.map(jax.numpy.asarray, initial)

    @property
    def reads(self) -> Reads:
        return self.given

    def step(self, x, theta, *u):
        return self.function(x, theta, *u) if self.weighted else self.function(x, *u)

    def init(self, key):
        del key
        return self.initial


@admits()
def as_stage(piece: Any) -> AbstractStage:
    """Turn a user's piece into a stage.

    **Arguments:** `piece`: a stage; an `eqx.Module` with `__call__(x)`, which becomes a `ModuleStage`:
    its floating arrays are weights, but for the temperature of a convex layer or an `LSE`; an
    `eqx.nn.GRUCell` or `eqx.nn.LSTMCell` (state (h, c)), which reads the forcing; a function
    `x -> x_next`; a pair `(f, theta0)` with `f(x, theta) -> x_next` and its starting weights; or a
    triple `(f, theta0, "forcing")` with `f(x, theta, u)`, where u is the next entry of the problem's
    forcing, such as the time (or `"context"`).

    **Raises:** `ValueError` for anything else.
    """
    if isinstance(piece, type):
        raise ValueError(f"as_stage: `piece` is {shown(piece)}; a stage was expected.")
    if isinstance(piece, AbstractStage):
        return piece
    if isinstance(piece, tuple) and len(piece) == 2 and callable(piece[0]):
        return FunctionStage(piece[0], _weights(piece[1]))
    if isinstance(piece, tuple) and len(piece) == 3 and _names_reading(piece[2]):
        return FunctionStage(piece[0], _weights(piece[1]), piece[2])
    if isinstance(piece, (eqx.nn.GRUCell, eqx.nn.LSTMCell)):
        return ModuleStage(EquinoxCell(piece), "forcing")
    if isinstance(piece, eqx.Module):
        return ModuleStage(piece)
    if callable(piece):
        return FunctionStage(piece)
    raise ValueError(
        "as_stage: a stage, an eqx.Module, a function, a pair (function, weights) or a triple "
        "(function, weights, 'forcing') was expected; "
        f"found {type(piece).__name__}."
    )


def _weights(initial: Any) -> Any:
    """The weights of a pair, all of which are solved for.

    **Raises:** `ValueError` for whole numbers, which have no derivative.
    """
    for leaf in jax.tree.leaves(initial):
        if not jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.numpy.floating):
            raise ValueError(
                "as_stage: the weights of a pair (function, weights) must be floating numbers, for they "
                f"are solved for; found {shown(leaf)}. Write 0.0 for 0, or put what is fixed into the "
                "function."
            )
    return initial


def _names_reading(word: Any) -> bool:
    return isinstance(word, str) and word in get_args(Reads)
