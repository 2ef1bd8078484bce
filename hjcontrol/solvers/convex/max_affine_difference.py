r"""A difference of two max-affine layers by the convex-concave procedure: `eps = 0` of `difference`.

    f = g - h,   g(x) = max_k (W x + b)_k,   h(x) = max_k (V x + c)_k,   theta = (W, b, V, c)
    J = C - G,   C = (1/n) sum_i 2 lse((g_i, h_i + y_i), delta) + rho/2 |theta|^2 - 2 delta log 2
                 G = (1/n) sum_i (g_i + h_i + y_i)
    step         theta <- argmin C - G_R,   G_R linear: each maximum of G read at a piece that attains it

Multipliers, one row of a simplex a sample and a layer: R (pieces that G is read at, the subgradient
taken) and P (pieces that C's own maxima are read at). Maxima lie above their averages, so

    C - G_R  >=  C_P - G_R  >=  (C_P - G_R)(theta) - |grad (C_P - G_R)|^2 / (2 rho)      everywhere
    gap = [C - C_P] + [G - G_R] + |grad (C_P - G_R)|^2 / (2 rho)  >=  0

The gap is zero exactly where some R, P show theta to minimise its own majorant: J is critical there. J
has kinks where pieces tie, and optimal points lie on them: there R and P differ, and no gradient is 0.

Critical is little: the loss is no steeper than the maxima, so one step ends at the best weights that keep
every sample's pieces. A sample under pressure (P puts weight on a tied piece that R does not read) is
then read at that piece instead, and what lowers J is kept; see Pang, Razaviyayn, Alvarado 2017.
"""

import itertools
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.third_party import needs
from hjcontrol.control import Solution
from hjcontrol.deformation import gibbs
from hjcontrol.layers.program import Residuals
from hjcontrol.networks import AffineWeights
from hjcontrol.solvers.convex.difference import (
    THEOREM,
    AbstractDifference,
    DifferenceOfConvex,
    Layers,
    by_leaf,
    check_positive,
    checked_layers,
)
from hjcontrol.solvers.convex.problem import (
    PrimalDual,
    answer,
    checked_samples,
    host,
    one_blas_thread,
)

FALL = 1e-9  # of J, that counts as lower: a cone program's last digits do not
PRESSURE = 1e-3  # weight on a piece that is not read, below which it is a cone program's noise
START_EPS = (
    0.1  # of the smooth problem whose end is the start, in standard deviations of the targets
)
STATEMENT = (
    " With max-affine layers both parts are polyhedral but for the loss and the ridge: the gap counts "
    "the pieces that G is read at, and vanishes exactly at critical points, kinks included."
)


class Shares(NamedTuple):
    """Rows of a simplex, one per sample: pieces of `plus` `(n, k1)` and of `minus` `(n, k2)`."""

    plus: Float[Array, "n k1"]
    minus: Float[Array, "n k2"]


class Readings(NamedTuple):
    """Multipliers: the pieces at which `G` is read (`taken`), and at which `C` is (`own`)."""

    taken: Shares
    own: Shares


class _Point(NamedTuple):
    """Where one step led."""

    theta: Layers
    readings: Readings
    found: Residuals

    @property
    def value(self) -> float:
        return float(self.found.objective)

    @property
    def gap(self) -> float:
        return float(self.found.objective - self.found.dual_objective)


@renamed(pieces="atoms")
@admits(delta="> 0", ridge=">= 0")
class DifferenceOfMaxAffine(AbstractDifference):
    """Difference of two max-affine layers. Candidate: `Layers`. Multipliers: `Readings`."""

    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"]
    delta: Float[Array, ""]
    eps: Float[Array, ""]
    ridge: Float[Array, ""]
    atoms: tuple[int, int] = eqx.field(static=True)
    theorem = THEOREM._replace(statement=THEOREM.statement.split(" The gap")[0] + STATEMENT)

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        atoms: tuple[int, int],
        delta: ArrayLike,
        ridge: ArrayLike,
    ):
        """**Arguments:** as for `DifferenceOfConvex`, without `eps`.

        **Raises:** `ValueError` for anything else.
        """
        self.inputs, self.targets = checked_samples("DifferenceOfMaxAffine", inputs, targets)
        self.delta, self.ridge = (jnp.asarray(a, self.inputs.dtype) for a in (delta, ridge))
        check_positive(self, ("delta", "ridge"), atoms)
        self.atoms = (int(atoms[0]), int(atoms[1]))
        self.eps = jnp.zeros((), self.inputs.dtype)  # the layers are max-affine

    def _planes(self, theta: Layers) -> tuple[Array, Array]:
        return tuple(self.inputs @ t.W.T + t.b[None, :] for t in theta)

    def readings(self, theta: Layers) -> Readings:
        """The pieces that attain the maxima, ties shared equally."""
        shares = Shares(*(jax.vmap(lambda row: gibbs(row, 0.0))(z) for z in self._planes(theta)))
        return Readings(shares, shares)

    def residuals(self, candidate: Layers, dual: Readings | None = None) -> Residuals:
        """`dual=None` reads every maximum at its own pieces: tight where no piece ties."""
        return _residuals(self, candidate, dual)

    def start(self) -> Layers:
        """The end of the smooth problem at a small temperature."""
        eps = START_EPS * max(float(np.std(np.asarray(self.targets))), np.finfo(float).tiny)
        smooth = DifferenceOfConvex(
            self.inputs, self.targets, atoms=self.atoms, eps=eps, delta=self.delta, ridge=self.ridge
        )
        return smooth.solve(tol=1e-4, max_steps=100).native.candidate

    def solve(
        self, *, init: Layers | None = None, tol: float = 1e-7, max_steps: int = 50
    ) -> Solution:
        """Run the convex-concave procedure from `init`, or from `start()`; steps are cone programs.

        `tol`: on the gap, relative to J; `max_steps`: that lower J. `history.objective` has J after
        every step, always falling.
        """
        return _solved(self, init, tol, max_steps)


def _solved(
    difference: DifferenceOfMaxAffine, init: Layers | None, tol: float, max_steps: int
) -> Solution:
    if max_steps < 1:
        raise ValueError(f"DifferenceOfMaxAffine: `max_steps` >= 1 is needed; found {max_steps}.")
    clock = time.perf_counter()
    judge = eqx.filter_jit(lambda p, t, r: p.residuals(t, r))
    step = _Majorant(difference)

    def tried(taken: Shares) -> _Point:
        with one_blas_thread():
            theta, own = step(taken)
        readings = Readings(taken, own)
        return _Point(theta, readings, judge(difference, theta, readings))

    best = tried(difference.readings(difference.start() if init is None else init).taken)
    history, finished = [best.value], False
    while len(history) < max_steps and not finished:
        again = [] if best.gap <= tol * abs(best.value) else [difference.readings(best.theta).taken]
        points = map(tried, itertools.chain(again, _switched(best.readings)))
        lower = next((p for p in points if p.value < best.value * (1.0 - FALL)), None)
        finished = lower is None
        if lower is not None:
            best = lower
            history.append(best.value)
    if best.gap <= tol * abs(best.value):
        result = RESULTS.successful
    else:
        result = RESULTS.stagnated if finished else RESULTS.max_steps_reached
    return answer(
        PrimalDual(difference, best.theta, best.readings),
        best.found.objective,
        best.found.dual_objective,
        result,
        seconds=time.perf_counter() - clock,
        steps=len(history),
        solver="convex-concave procedure, cone programs",
        history=np.asarray(history),
    )


def _residuals(
    difference: DifferenceOfMaxAffine, candidate: Layers, dual: Readings | None
) -> Residuals:
    theta = checked_layers(
        "DifferenceOfMaxAffine", candidate, difference.atoms, difference.inputs.shape[1]
    )
    taken, own = difference.readings(theta) if dual is None else dual
    square = lambda t: sum(jnp.sum(a**2) for a in jax.tree.leaves(t))

    def read(t: Layers) -> Array:
        z = difference._planes(t)
        g, h = (jnp.sum(p * a, axis=1) for p, a in zip(own, z, strict=True))
        u, v = (jnp.sum(r * a, axis=1) for r, a in zip(taken, z, strict=True))
        return (
            difference._loss(g, h)
            - jnp.mean(u + v + difference.targets)
            + 0.5 * difference.ridge * square(t)
        )

    low, pull = jax.value_and_grad(read)(theta)
    planes = difference._planes(theta)
    g, h = (jnp.max(z, axis=1) for z in planes)
    value = difference._loss(g, h) + 0.5 * difference.ridge * square(theta)
    value = value - jnp.mean(g + h + difference.targets)
    named = lambda what, tree: {
        f"{what}.{k}": jnp.abs(v) for k, v in zip(Shares._fields, tree, strict=True)
    }
    below = lambda shares: [
        jnp.sum(p * (jnp.max(z, axis=1, keepdims=True) - z), axis=1)
        for p, z in zip(shares, planes, strict=True)
    ]
    off = lambda shares: [
        jnp.maximum(jnp.max(-p, axis=1), jnp.abs(jnp.sum(p, axis=1) - 1.0)) for p in shares
    ]
    slack = jnp.mean(sum(below(taken)))  # G - G_R: the majorant there lies above J by so much
    return Residuals(
        primal={},
        dual=named("taken", off(taken)) | named("own", off(own)),
        complementarity=named("taken", below(taken)) | named("own", below(own)),
        stationarity=by_leaf(pull),
        objective=value,
        dual_objective=low - slack - 0.5 * square(pull) / difference.ridge,
    )


def _switched(readings: Readings) -> Iterator[Shares]:
    """Readings with the samples under most pressure read at the piece that pulls: all, half, ..., one."""
    taken, own = ([host(a) for a in shares] for shares in readings)
    pull = [p * (r == 0) for r, p in zip(taken, own, strict=True)]
    pressure = np.concatenate([a.sum(axis=1) for a in pull])
    order = np.argsort(-pressure)
    count = int(np.sum(pressure > PRESSURE))
    while count:
        chosen = np.zeros(len(pressure), bool)
        chosen[order[:count]] = True
        rows = np.split(chosen, len(pull))
        new = [
            np.where(row[:, None], np.eye(a.shape[1])[a.argmax(axis=1)], r)
            for row, a, r in zip(rows, pull, taken, strict=True)
        ]
        yield Shares(*(jnp.asarray(a, own.dtype) for a, own in zip(new, readings.own, strict=True)))
        count //= 2


class _Majorant:
    """`minimise C - slope . theta` as a cone program, compiled once: the slope is a parameter."""

    def __init__(self, problem: DifferenceOfMaxAffine):
        needs("A convex problem", "cvxpy")
        import cvxpy as cp

        x, y = host(problem.inputs), host(problem.targets)
        n, d = x.shape
        delta, rho = float(problem.delta), float(problem.ridge)
        self.samples = np.column_stack([x, np.ones(n)])
        self.dtype, self.n = problem.inputs.dtype, n
        self.layers = [cp.Variable((k, d + 1)) for k in problem.atoms]
        self.slopes = [cp.Parameter((k, d + 1)) for k in problem.atoms]
        tops = [cp.Variable(n) for _ in problem.atoms]
        self.below = [
            self.samples @ T.T <= cp.reshape(top, (n, 1), order="C") @ np.ones((1, k))
            for T, top, k in zip(self.layers, tops, problem.atoms, strict=True)
        ]
        pairs = cp.vstack([tops[0], tops[1] + y]) / delta
        loss = 2.0 * delta * cp.sum(cp.log_sum_exp(pairs, axis=0)) / n
        linear = sum(
            cp.sum(cp.multiply(s, T)) for s, T in zip(self.slopes, self.layers, strict=True)
        )
        ridge = 0.5 * rho * sum(cp.sum_squares(T) for T in self.layers)
        self.program = cp.Problem(cp.Minimize(loss + ridge - linear), self.below)

    def __call__(self, taken: Shares) -> tuple[Layers, Shares]:
        """The minimiser, and the pieces at which its maxima are read: its multipliers, to a sum of 1."""
        for parameter, shares in zip(self.slopes, taken, strict=True):
            parameter.value = host(shares).T @ self.samples / self.n
        tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11) | {
            "max_threads": 1
        }
        with warnings.catch_warnings():
            # An inaccurate step is judged by its gap, not by its words
            warnings.simplefilter("ignore")
            self.program.solve(solver="CLARABEL", **tight)
        values = [T.value for T in self.layers if T.value is not None]
        if len(values) < len(self.layers):
            raise RuntimeError(
                f"DifferenceOfMaxAffine: a step's cone program ended as {self.program.status!r}. "
                "Rescale the inputs, or raise `ridge`."
            )
        cast = lambda a: jnp.asarray(np.asarray(a), self.dtype)
        theta = Layers(*(AffineWeights(cast(T[:, :-1]), cast(T[:, -1])) for T in values))
        own = []
        for T, below in zip(values, self.below, strict=True):
            planes = self.samples @ T.T
            force = np.maximum(np.asarray(below.dual_value), 0.0)
            total = force.sum(axis=1, keepdims=True)
            first = (planes >= planes.max(axis=1, keepdims=True)) + 0.0
            first /= first.sum(axis=1, keepdims=True)
            share = np.where(total > 1e-9 / self.n, force / np.where(total > 0, total, 1.0), first)
            own.append(cast(share))
        return theta, Shares(*own)
