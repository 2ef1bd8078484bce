r"""A difference of two log-sum-exp layers, trained by the convex-concave procedure.

    f = g - h,   g(x) = lse(W x + b, eps),   h(x) = lse(V x + c, eps)
    minimise  J = (1/n) sum_i psi(f(x_i) - y_i) + rho/2 |theta|^2
              psi(r) = 2 lse((r/2, -r/2), delta) - 2 delta log 2
    J = C - G,   C = (1/n) sum_i 2 lse((g_i, h_i + y_i), delta) + rho/2 |theta|^2 - 2 delta log 2
                 G = (1/n) sum_i (g_i + h_i + y_i)

psi   log-cosh: r^2/(4 delta) for |r| << delta, |r| beyond; 0 <= |r| - psi <= 2 delta log 2
C, G  convex in theta = (W, b, V, c) together, since g and h are and lse does not decrease
step  theta <- argmin C - s . theta,  s = grad G(theta): a strongly convex program, so J never rises

The split needs no sign of the targets and no bound on the layers. J itself is not convex: the certificate
is that theta minimises its own convex majorant, that is |grad J| = 0. Max-affine layers (eps = 0, where J
has kinks) are `max_affine_difference`; |f_eps - f_0| <= eps log N.
"""

import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Ridge, Solution, Theorem
from hjcontrol.control.units import unit
from hjcontrol.deformation import lse
from hjcontrol.layers.program import Residuals
from hjcontrol.networks import AbstractStage, AffineWeights, Chain, Dense, Weights, soft_maximum
from hjcontrol.solvers.convex.column_generation import fit_lse, steepest
from hjcontrol.solvers.convex.problem import (
    AbstractConvexProblem,
    PrimalDual,
    answer,
    checked_samples,
    host,
)

THEOREM = Theorem(
    "Convex-concave procedure (Yuille & Rangarajan 2003; DCA, Pham Dinh & Le Thi)",
    "J is a difference of convex functions of the weights; each step minimises a convex majorant that "
    "touches J, so J never rises and limits are critical. The gap is that of the majorant at the "
    "candidate, strongly convex with modulus rho: it vanishes exactly where grad J does.",
    "global optimality: differences of convex layers have other critical points.",
)
CURVATURES = (
    1.0,
    2.0,
    4.0,
    8.0,
)  # of the bowl that makes a start's first target convex, in data's units
INNER_STEPS = 200  # L-BFGS steps of one majorant: it need not be solved to the end to go down


class Difference(AbstractStage):
    """Difference of two soft maxima of affine functions; weights: a pair of `AffineWeights`."""

    plus: Dense
    minus: Dense

    def step(self, x: Float[Array, " in"], theta) -> Float[Array, " 1"]:
        return self.plus.step(x, theta[0]) - self.minus.step(x, theta[1])

    def init(self, key: Key[Array, ""]) -> tuple[AffineWeights, AffineWeights]:
        one, two = jax.random.split(key)
        return self.plus.init(one), self.minus.init(two)


class SoftAbsolute(Shown):
    """`psi(f - y)` of one sample, from a state of shape (1,)."""

    delta: Float[Array, ""]

    def __call__(self, state: Float[Array, " 1"], y: Float[Array, ""]) -> Float[Array, ""]:
        return log_cosh(state[0] - y, self.delta.astype(state.dtype))


def log_cosh(r: Float[Array, "*shape"], delta: Float[Array, ""]) -> Float[Array, "*shape"]:
    r"""`psi(r) = 2 delta log cosh(r / 2 delta)`, as `delta log1p(sinh(r / 2 delta)^2)` near 0, where the
    difference of logarithms has no digit left."""
    size = jnp.abs(r)
    near = size < 2.0 * delta
    inner = delta * jnp.log1p(jnp.sinh(jnp.where(near, r, 0.0) / (2.0 * delta)) ** 2)
    outer = size + 2.0 * delta * (jnp.log1p(jnp.exp(-size / delta)) - np.log(2.0))
    return jnp.where(near, inner, outer)


class Layers(NamedTuple):
    """Weights of the two layers."""

    plus: AffineWeights
    minus: AffineWeights


class AbstractDifference(AbstractConvexProblem):
    """A difference of two layers at temperature `eps >= 0`. Candidate: `Layers`."""

    inputs: eqx.AbstractVar[Float[Array, "n d"]]
    targets: eqx.AbstractVar[Float[Array, " n"]]
    eps: eqx.AbstractVar[Float[Array, ""]]
    delta: eqx.AbstractVar[Float[Array, ""]]
    ridge: eqx.AbstractVar[Float[Array, ""]]
    atoms: eqx.AbstractVar[tuple[int, int]]

    def network(self, candidate: Layers) -> tuple[Chain, Weights]:
        return self._chain(), self.to_weights(candidate)

    def as_control_problem(self) -> ControlProblem:
        """One stage, not convex; its objective is `J`, with a subgradient where pieces tie."""
        return ControlProblem(
            self._chain(),
            self.inputs,
            self.targets,
            terminal=SoftAbsolute(self.delta),
            running=Ridge(self.ridge),
        )

    def to_weights(self, candidate: Layers) -> Weights:
        return self._chain().stack([tuple(candidate)])

    def from_weights(self, weights: Weights) -> Layers:
        return Layers(*self._chain().unstack(weights)[0])

    def _loss(self, g: Array, h: Array) -> Array:
        """The loss of the two layers' values, without the concave part."""
        pairs = jnp.stack([g, h + self.targets], axis=1)
        soft = 2.0 * jax.vmap(lambda row: lse(row, self.delta))(pairs)
        return jnp.mean(soft) - 2.0 * self.delta * np.log(2.0)

    def _chain(self) -> Chain:
        d = self.inputs.shape[1]
        plus, minus = (soft_maximum(d, count, self.eps) for count in self.atoms)
        return Chain([Difference(plus, minus)], self.inputs[0])


@renamed(pieces="atoms")
@admits(eps=">= 0", delta="> 0", ridge=">= 0")
class DifferenceOfConvex(AbstractDifference):
    """Difference of two log-sum-exp layers. Candidate: `Layers`. Multipliers: the slope `s` of `G`,
    `Layers` too."""

    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"]
    eps: Float[Array, ""]
    delta: Float[Array, ""]
    ridge: Float[Array, ""]
    atoms: tuple[int, int] = eqx.field(static=True)
    theorem = THEOREM

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        atoms: tuple[int, int],
        eps: ArrayLike,
        delta: ArrayLike,
        ridge: ArrayLike,
    ):
        """**Arguments:** `inputs` `(n, d)`, `targets` `(n,)`; `atoms` of the two layers; `eps > 0` of
        the layers, `delta > 0` of the loss, both in the targets' units; `ridge > 0`.

        **Raises:** `ValueError` for anything else.
        """
        self.inputs, self.targets = checked_samples("DifferenceOfConvex", inputs, targets)
        dtype = self.inputs.dtype
        self.eps, self.delta, self.ridge = (jnp.asarray(a, dtype) for a in (eps, delta, ridge))
        check_positive(self, ("eps", "delta", "ridge"), atoms)
        self.atoms = (int(atoms[0]), int(atoms[1]))

    def _layers(self, theta: Layers) -> tuple[Array, Array]:
        soft = jax.vmap(lambda row: lse(row, self.eps))
        return tuple(soft(self.inputs @ t.W.T + t.b[None, :]) for t in theta)

    def convex_part(self, theta: Layers) -> Float[Array, ""]:
        """`C`."""
        g, h = self._layers(theta)
        square = sum(jnp.sum(a**2) for a in jax.tree.leaves(theta))
        return self._loss(g, h) + 0.5 * self.ridge * square

    def concave_part(self, theta: Layers) -> Float[Array, ""]:
        """`G`, which is subtracted."""
        g, h = self._layers(theta)
        return jnp.mean(g + h + self.targets)

    def residuals(self, candidate: Layers, dual: Layers | None = None) -> Residuals:
        return _residuals(self, candidate, dual)

    def start(self) -> Layers:
        """Two Hopf-Cole fits: `y + k|x|^2/2` and `k|x|^2/2`, the best of some curvatures `k`."""
        x, y = host(self.inputs), host(self.targets)
        bowl = 0.5 * np.sum((x - x.mean(axis=0)) ** 2, axis=1)
        unit = steepest(x, y) / max(float(np.sqrt(2.0 * bowl.max())), np.finfo(float).tiny)
        tried = [self._fits(y, factor * unit * bowl) for factor in CURVATURES]
        value = eqx.filter_jit(lambda p, t: p.convex_part(t) - p.concave_part(t))
        return min(tried, key=lambda theta: float(value(self, theta)))

    def _fits(self, y: np.ndarray, bowl: np.ndarray) -> Layers:
        layers = []
        for target, count in zip((y + bowl, bowl), self.atoms, strict=True):
            fit = fit_lse(self.inputs, target, self.eps, max_atoms=count, max_steps=1)
            atoms = fit.native.problem.layer(fit.native.candidate)
            layers.append(_filled(atoms, count, self.eps, self.inputs.dtype))
        return Layers(*layers)

    def solve(
        self, *, init: Layers | None = None, tol: float = 1e-6, max_steps: int = 500
    ) -> Solution:
        """Run the convex-concave procedure from `init`, or from `start()`. `tol`: on `max |dJ/dtheta|`,
        in the unit (see `control.units`) that the gradients of its two parts have at the start.

        `history.objective` has J after every step, never rising.
        """
        return _solved(self, init, tol, max_steps)


def _solved(
    difference: DifferenceOfConvex, init: Layers | None, tol: float, max_steps: int
) -> Solution:
    clock = time.perf_counter()
    theta = difference.start() if init is None else init
    theta, size, steps, history, of = _procedure(difference, theta, jnp.asarray(tol), max_steps)
    size, steps = float(size), int(steps)
    residuals = eqx.filter_jit(lambda p, t: p.residuals(t))(difference, theta)
    if not np.isfinite(size):
        result = RESULTS.nonfinite
    elif size <= tol * float(of):
        result = RESULTS.successful
    else:
        result = RESULTS.max_steps_reached if steps >= max_steps else RESULTS.stagnated
    return answer(
        PrimalDual(difference, theta, jax.grad(difference.concave_part)(theta)),
        residuals.objective,
        residuals.dual_objective,
        result,
        seconds=time.perf_counter() - clock,
        steps=steps,
        solver="convex-concave procedure",
        stationarity=size,
        history=np.asarray(history)[: steps + 1],
    )


def _residuals(difference: DifferenceOfConvex, candidate: Layers, dual: Layers | None) -> Residuals:
    theta = checked_layers(
        "DifferenceOfConvex", candidate, difference.atoms, difference.inputs.shape[1]
    )
    value, pull = jax.value_and_grad(difference.convex_part)(theta)
    minus, slope = jax.value_and_grad(difference.concave_part)(theta)
    taken = slope if dual is None else dual
    pull = jax.tree.map(jnp.subtract, pull, taken)
    off = jax.tree.map(lambda a, b: jnp.abs(a - b), slope, taken)
    square = sum(jnp.sum(a**2) for a in jax.tree.leaves(pull))
    return Residuals(
        primal={},
        dual=by_leaf(off),
        complementarity={},
        stationarity=by_leaf(pull),
        objective=value - minus,
        dual_objective=value - minus - 0.5 * square / difference.ridge,
    )


def check_positive(problem: Any, names: tuple[str, ...], atoms: Any) -> None:
    """**Raises:** `ValueError` for a number that is not positive, or for a layer without pieces."""
    who = type(problem).__name__
    for name in names:
        if known_to_fail(getattr(problem, name) > 0):
            raise ValueError(
                f"{who}: `{name}` must be > 0; found {float(getattr(problem, name))}."
                + (" Max-affine layers are `DifferenceOfMaxAffine`." if name == "eps" else "")
            )
    if len(atoms) != 2 or min(atoms) < 1:
        raise ValueError(f"{who}: `atoms` of both layers, >= 1, are needed; found {atoms}.")


def by_leaf(tree: Layers) -> dict[str, Array]:
    """Sizes of both layers' leaves, by name."""
    return {
        f"{name}.{leaf}": jnp.abs(getattr(getattr(tree, name), leaf))
        for name in Layers._fields
        for leaf in AffineWeights._fields
    }


def checked_layers(who: str, candidate: Layers, atoms: tuple[int, int], d: int) -> Layers:
    """The candidate as arrays. **Raises:** `ValueError` for wrong shapes."""
    theta = Layers(*(AffineWeights(*(jnp.asarray(a) for a in t)) for t in candidate))
    for name, t, count in zip(Layers._fields, theta, atoms, strict=True):
        if t.W.shape != (count, d) or t.b.shape != (count,):
            raise ValueError(
                f"{who}: the layer `{name}` needs W {(count, d)} and b {(count,)}; found "
                f"{t.W.shape} and {t.b.shape}."
            )
    return theta


def _filled(atoms: AffineWeights, count: int, eps: Any, dtype: Any) -> AffineWeights:
    """A layer of exactly `count` atoms: the first ones are split in equal parts, the function kept."""
    W, b = (np.asarray(a, float) for a in atoms)
    index = np.arange(count) % len(b)
    parts = np.bincount(index, minlength=len(b))
    b = b[index] - float(eps) * np.log(parts[index])
    return AffineWeights(jnp.asarray(W[index], dtype), jnp.asarray(b, dtype))


@eqx.filter_jit
def _procedure(problem: DifferenceOfConvex, theta: Layers, tol: Array, max_steps: int) -> tuple:
    """Weights, stationarity, steps, J after each step, and the unit of the gradient."""
    parts = [_largest(jax.grad(f)(theta)) for f in (problem.convex_part, problem.concave_part)]
    of = unit(jnp.maximum(*parts))

    def value(theta: Layers) -> Array:
        return problem.convex_part(theta) - problem.concave_part(theta)

    def step(carry: tuple) -> tuple:
        theta, size, k, history, _ = carry
        slope = jax.grad(problem.concave_part)(theta)
        new = _majorant(problem, theta, slope, 0.1 * jnp.minimum(size, of))
        now = value(new)
        better = now < history[k]
        theta = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, theta)
        size = _largest(jax.grad(value)(theta))
        history = history.at[k + 1].set(jnp.where(better, now, history[k]))
        return theta, size, k + 1, history, better

    def proceed(carry: tuple) -> Array:
        _, size, k, _, better = carry
        return (size > tol * of) & (k < max_steps) & better

    history = jnp.zeros(max_steps + 1, problem.inputs.dtype).at[0].set(value(theta))
    start = (theta, _largest(jax.grad(value)(theta)), jnp.asarray(0), history, jnp.asarray(True))
    theta, size, k, history, _ = jax.lax.while_loop(proceed, step, start)
    return theta, size, k, history, of


def _majorant(problem: DifferenceOfConvex, theta: Layers, slope: Layers, tol: Array) -> Layers:
    """Minimise `C - slope . theta` from `theta` by L-BFGS."""
    method = optax.lbfgs()

    def model(t: Layers) -> Array:
        products = jax.tree.map(lambda s, a: jnp.sum(s * a), slope, t)
        return problem.convex_part(t) - jax.tree.reduce(jnp.add, products)

    both = optax.value_and_grad_from_state(model)

    def step(carry: tuple) -> tuple:
        t, state, k, _ = carry
        value, gradient = both(t, state=state)
        change, state = method.update(
            gradient, state, t, value=value, grad=gradient, value_fn=model
        )
        t = optax.apply_updates(t, change)
        return t, state, k + 1, _largest(optax.tree_utils.tree_get(state, "grad"))

    def proceed(carry: tuple) -> Array:
        return (carry[3] > tol) & (carry[2] < INNER_STEPS)

    start = (theta, method.init(theta), jnp.asarray(0), jnp.full((), jnp.inf, tol.dtype))
    return jax.lax.while_loop(proceed, step, start)[0]


def _largest(tree: Layers) -> Array:
    return jax.tree.reduce(jnp.maximum, jax.tree.map(lambda a: jnp.max(jnp.abs(a)), tree))
