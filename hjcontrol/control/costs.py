r"""Costs of a training problem.

    J(theta) = (1/n) sum_i [ Phi(x_K^i, y^i) + sum_k l(x_k^i, theta_k) ] + sum_k r(theta_k)

Phi    terminal cost of one sample        l   running cost of one sample's state, averaged over samples
r      running cost of the weights alone, counted once, whatever the number of samples
c      cost of a run's weights together (`Smoothing`), added to J: neighbours in depth are coupled
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.interned import interned
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import Tree
from hjcontrol.control.references import Wants, extras, wanted
from hjcontrol.deformation import gibbs, lse


@admits()
def softmax_cross_entropy(
    logits: Float[Array, " classes"], label: Int[Array, ""]
) -> Float[Array, ""]:
    r"""$\mathrm{lse}(z, 1) - z_y$: a free-energy gap, zero when all mass is on the label.

    `label` is an integer in `0 .. classes-1`. Nats, to full relative accuracy: the loss is the soft
    maximum of $z_j - z_y$, and its derivative at the label is minus the sum of the others, never
    $p_y - 1$. A label that is masked (`-inf`) costs `inf`.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> print(f"{hj.control.softmax_cross_entropy(jnp.zeros(2), jnp.asarray(1)):.4f}")
        0.6931
    """
    check_labels(label, logits)
    return _cross_entropy(logits, jnp.arange(logits.shape[-1]) == label)


@jax.custom_jvp
def _cross_entropy(z: Array, hit: Array) -> Array:
    own = jnp.sum(jnp.where(hit, z, 0.0))
    loss = lse(z - jnp.where(jnp.isfinite(own), own, 0.0), 1.0)
    # No hit: a label that no logit stands for. Without this the loss has no lower bound.
    return jnp.where(jnp.isneginf(own) | ~jnp.any(hit), jnp.inf, loss)


@_cross_entropy.defjvp
def _cross_entropy_rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """`sum_{j != y} p_j dz_j - (sum_{j != y} p_j) dz_y`; as `sum_j p_j (dz_j - dz_y)` it cancels when
    it is transposed."""
    (z, hit), (dz, _) = primals, tangents
    others = jnp.where(hit, 0.0, gibbs(z, 1.0))
    own = jnp.sum(jnp.where(hit, dz, 0.0))
    return _cross_entropy(z, hit), jnp.sum(others * dz) - jnp.sum(others) * own


def check_labels(labels: Any, logits: Any) -> None:
    """Refuse labels that no logit stands for.

    **Raises:** `ValueError`, as far as the labels are known.
    """
    shape = getattr(logits, "shape", ())
    if len(shape) == 1 and labels is not None:
        found = known(labels)
        if found is not None and found.size and not 0 <= found.min() <= found.max() < shape[0]:
            raise ValueError(
                "softmax_cross_entropy: one logit a class is needed, shape (classes,), and labels from "
                f"0; found {shape[0]} logits, labels {found.min()} to {found.max()}."
            )


@admits()
def least_squares(x: Tree, target: Tree) -> Float[Array, ""]:
    r"""$\tfrac12\|x - y\|^2$, over all entries of all leaves.

    **Raises:** `ValueError` for a state and a target that are not shaped alike.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> float(hj.control.least_squares(jnp.array([3.0]), jnp.array([1.0])))
        2.0
    """
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (x, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"least_squares: `x` and `target` must be shaped alike; found {shapes[0]} and {shapes[1]}."
        )
    squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), x, target)
    return 0.5 * jax.tree.reduce(jnp.add, squares)


class AbstractRunningCost(Shown):
    """A cost paid at every stage: `state` once a sample (averaged), `weights` once a stage."""

    @property
    def reads(self) -> Wants:
        """Whether `state` takes a third argument, what is read there: see `References`."""
        return "nothing"

    @abc.abstractmethod
    def state(self, x: PyTree[Array], theta: PyTree[Array], *reference: Any) -> Any:
        """`l(x_k, theta_k)` of one sample; `reference`: what the cost reads, if it reads something."""

    @abc.abstractmethod
    def weights(self, theta: PyTree[Array]) -> Float[Array, ""] | float:
        """`r(theta_k)` of one stage."""

    couples: ClassVar[bool] = False

    def across(self, theta: PyTree[Array]) -> Float[Array, ""] | float:
        """`c(theta)` of one run's weights together, its stages in front; only if it `couples`."""
        del theta
        return 0.0

    def whole(self, weights: Any) -> Float[Array, ""] | float:
        """A cost of all runs' weights together; only if it `couples`."""
        del weights
        return 0.0


@admits(strength="finite")
class Ridge(AbstractRunningCost):
    r"""$r(\theta) = \tfrac{\rho}{2}\|\theta\|^2$ over all weights of a stage, biases included.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> float(hj.control.Ridge(0.5).weights({"W": jnp.array([1.0, 2.0])}))
        1.25
    """

    strength: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        if known_to_fail(self.strength >= 0):
            raise ValueError(f"Ridge: the strength must be >= 0; found {float(self.strength)}.")

    def state(self, x, theta):
        return 0.0

    def weights(self, theta):
        leaves = jax.tree.leaves(theta)
        return sum((0.5 * self.strength.astype(a.dtype) * jnp.sum(a**2) for a in leaves), 0.0)


@admits(strength="finite")
class Smoothing(AbstractRunningCost):
    r"""$c(\theta) = \tfrac{\rho}{2} \sum_k \|\theta_{k+1} - \theta_k\|^2$ over neighbours within a run
    of equal stages; tied weights pay nothing.

    The step length stays out of it: for a flow cut into K steps of length h, `strength = rho / h`.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> float(hj.control.Smoothing(2.0).across(jnp.array([[1.0], [3.0]])))
        4.0
    """

    strength: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    couples: ClassVar[bool] = True

    def __check_init__(self):
        if known_to_fail(self.strength >= 0):
            raise ValueError(f"Smoothing: the strength must be >= 0; found {float(self.strength)}.")

    def state(self, x, theta):
        return 0.0

    def weights(self, theta):
        return 0.0

    def across(self, theta):
        leaves = [jnp.diff(a, axis=0) for a in jax.tree.leaves(theta)]
        return sum((0.5 * self.strength.astype(a.dtype) * jnp.sum(a**2) for a in leaves), 0.0)


@admits()
class StateCost(AbstractRunningCost):
    """A user's running cost of one sample: `l(x, theta)`; or `l(x, theta, r)`, with the problem's
    reference there; or `l(x, theta, k, y)`, with the stage's number and the sample's target.

    **Raises:** `ValueError` for a function that needs another number of arguments.
    """

    function: Callable[..., Any] = eqx.field(converter=interned)

    def __check_init__(self):
        try:
            wanted(self.function, 2)
        except ValueError as error:
            raise ValueError(f"StateCost: {error}") from None

    @property
    def reads(self) -> Wants:
        return wanted(self.function, 2)

    def state(self, x, theta, *reference):
        read = extras(self.reads, reference[0]) if reference else ()
        return self.function(x, theta, *read)

    def weights(self, theta):
        return 0.0


@admits()
class WeightCost(AbstractRunningCost):
    """A user's cost `r(theta)` of one stage's weights."""

    function: Callable[[PyTree[Array]], Float[Array, ""]] = eqx.field(converter=interned)

    def state(self, x, theta):
        return 0.0

    def weights(self, theta):
        return self.function(theta)


def as_costs(running: Any) -> tuple[AbstractRunningCost, ...]:
    """One running cost or several; a plain function is a `StateCost`."""
    costs = running if isinstance(running, Sequence) else (running,)
    return tuple(c if isinstance(c, AbstractRunningCost) else StateCost(c) for c in costs)
