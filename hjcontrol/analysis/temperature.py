r"""Which eps? A window with units, and three ways to choose, each of which optimises something else.

    window      h^2/t <= eps <= h side/(t log N),   h = side N^(-1/d)            units: length^2/time
                floor     kernels of width sqrt(eps t) are as wide as atoms are apart
                ceiling   the soft maximum's excess eps log N is as large as what N atoms cannot resolve
    heuristic   N^(-1/d): a number without units, so right in no system of units but one
    crossover   the eps at which the mean entropy of the weights is log 2: two atoms share; ~ N^(-2/d)

    validation  least mean loss on held-out samples       measures; the minimum itself is optimistic
    bound       least certified upper bound on a loss      proves; never below what it bounds
    jointly     eps trained with the weights               fits; nothing holds it from overfitting

Both ends of the window are orders of magnitude, with constant one, for atoms spread evenly over a box;
they scale with it (lengths by s, times by r: eps by s^2/r), which the heuristic does not. The bound on
the *approximation*, eps log N + C h, is least at eps = 0: by itself it chooses nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.record import Record, Told, figure
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, least_squares
from hjcontrol.deformation import gibbs_entropy
from hjcontrol.layers import LSE
from hjcontrol.networks import AbstractStage
from hjcontrol.networks.trained import AnyHead, affine_head_of, head_of

__all__ = ["Choice", "Window", "by_bound", "by_validation", "crossover", "jointly", "window"]


def __dir__() -> list[str]:
    return __all__


LOG_TWO = 0.6931471805599453
INSTEAD = (
    "No eps both lets the kernels touch and keeps the excess small: these atoms would have to lie on a "
    "set of dimension {:.3g} or less, or be 10^{:.3g} in this one. Measure instead: `by_validation` on "
    "held-out samples, or `by_bound` on certified losses."
)


class Window(Told, Shown):
    """Admissible temperatures for `N` atoms spread evenly over a box. Units: length^2/time."""

    floor: Float[Array, ""]
    ceiling: Float[Array, ""]
    heuristic: Float[Array, ""]  # N^(-1/d), no units
    spacing: Float[Array, ""]  # h, length

    @property
    def empty(self) -> bool:
        """Whether the floor is above the ceiling: `log N > N^(1/d)`, too few atoms for the dimension."""
        return bool(self.floor > self.ceiling)

    def __contains__(self, eps: float) -> bool:
        return bool((self.floor <= eps) & (eps <= self.ceiling))

    @property
    def fills_dimension(self) -> float:
        """The largest dimension in which so many atoms leave the window open: `log N / log log N`.
        Infinite for N <= e, which leave it open in any."""
        log_n = float(self.floor / (self.ceiling * self.heuristic))
        return log_n / np.log(log_n) if log_n > 1 else np.inf

    @property
    def fills_atoms(self) -> float:
        """`log10 N` of the atoms from which on the window is open in this dimension: `log N = N^(1/d)`
        solved for its larger root; 0 up to dimension e, where it is never empty."""
        share = float(self.heuristic)
        d = -float(self.floor / (self.ceiling * share)) / np.log(share)
        if d <= np.e:
            return 0.0
        log_n = d**2
        for _ in range(200):  # log N = d log log N: decreasing to the larger root
            log_n = d * np.log(log_n)
        return log_n / np.log(10)

    def as_record(self) -> Record:
        """What this result says of itself."""
        where = "inside" if float(self.heuristic) in self else "outside"
        ratio = f"a factor of {figure(self.ceiling / self.floor, 3)}"
        span = "EMPTY: log N > N^(1/d), too few atoms for this dimension" if self.empty else ratio
        return Record(
            "Temperatures",
            f"eps from {figure(self.floor)} to {figure(self.ceiling)} length^2/time ({span})",
            facts={
                "spacing": f"atoms are {figure(self.spacing)} (length) apart; orders of magnitude",
                "heuristic": f"N^(-1/d) = {figure(self.heuristic)} has no units; in these, {where}",
            },
            notes=(INSTEAD.format(self.fills_dimension, self.fills_atoms),) if self.empty else (),
        )


@admits(atoms=">= 1", dimension="> 0", side="> 0", t="> 0")
def window(
    atoms: int,
    dimension: float | int,
    *,
    side: float | Float[Array, ""] = 1.0,
    t: float | Float[Array, ""] = 1.0,
) -> Window:
    """The admissible window of `atoms` atoms over a box of that `side` (length), at time `t`.

    `dimension`: of the set that the atoms cover; an intrinsic dimension need not be whole.

    **Raises:** `ValueError` for fewer than two atoms, or anything that is not positive.
    """
    found = {"dimension": dimension, "side": side, "t": t}
    for name, value in found.items():
        seen = known(value)
        if seen is not None and (seen.ndim != 0 or not seen > 0):
            raise ValueError(f"window: a scalar `{name}` > 0 is needed; found {value}.")
    if atoms < 2:
        raise ValueError(f"window: at least two atoms are needed; found {atoms}.")
    d, side, t = (jnp.asarray(v, float) for v in (dimension, side, t))
    share = jnp.asarray(atoms, float) ** (-1 / d)
    h = side * share
    return Window(h**2 / t, h * side / (t * np.log(atoms)), share, h)


@admits()
def crossover(
    model: AnyHead,
    points: Float[Array, "n d"],
    *,
    entropy: float | Float[Array, ""] = LOG_TWO,
    between: tuple[float, float] = (1e-8, 1e8),
) -> Float[Array, ""]:
    """The `eps` at which the mean entropy of the Gibbs weights over `points` is `entropy` (nats).

    The entropy rises with `eps` at fixed logits, so bisection of `log eps` finds the only one.
    `between`: where it is sought, times the spread of the logits; NaN where `jit` hides that it is not
    there.

    **Raises:** `ValueError` where no `eps` there gives that entropy. Two atoms never reach log 2, the
    default: ask for less.
    """
    z = jax.vmap(head_of("crossover", model).scores)(points)
    most = float(np.log(z.shape[1]))
    asked = known(entropy)  # under `jit` as well: how many atoms there are is no secret
    if asked is not None and not 0 < asked < most - 1e-12:
        raise ValueError(
            f"crossover: {z.shape[1]} atoms have entropies between 0 and log {z.shape[1]} = "
            f"{most:.6g}, and reach neither; asked was {float(entropy):.6g}. Give `entropy` between them."
        )
    spread = jnp.max(z) - jnp.min(z)
    mean = lambda e: jnp.mean(gibbs_entropy(z, e, axis=1)) - entropy
    low, high = (jnp.log(jnp.asarray(b, z.dtype) * spread) for b in between)
    ends = mean(jnp.exp(low)), mean(jnp.exp(high))
    reached = (ends[0] < 0) & (ends[1] > 0) & (jnp.asarray(entropy) < most - 1e-12)
    if known_to_fail(reached):
        raise ValueError(
            f"crossover: the mean entropy runs from {float(ends[0] + entropy):.6g} to "
            f"{float(ends[1] + entropy):.6g} over `between` and does not pass {float(entropy):.6g}. "
            "Tied logits keep it up at every eps; else widen `between`."
        )

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        above = mean(jnp.exp(middle)) > 0
        return jnp.where(above, ends[0], middle), jnp.where(above, middle, ends[1])

    low, high = jax.lax.fori_loop(0, 70, halve, (low, high))
    return jnp.where(reached, jnp.exp(0.5 * (low + high)), jnp.nan)


_WORDS = {
    "validation": "least mean loss on held-out samples (measured; the minimum is optimistic)",
    "bound": "least mean of a certified upper bound (a bound on every sample, not an estimate)",
    "jointly": "least training loss over weights and eps together (nothing prevents overfitting)",
}


class Choice(Told, Shown):
    """A temperature, how it was chosen, and what was minimised."""

    eps: Float[Array, ""]
    objective: Float[Array, ""]  # what was minimised, at the choice
    by: str = eqx.field(static=True)
    grid: Float[np.ndarray, " trials"]  # temperatures tried; for `jointly`, start and end
    values: Float[np.ndarray, " trials"]
    # Standard errors over the samples; NaN where there is none
    errors: Float[np.ndarray, " trials"]
    layer: LSE | None = None  # trained with it, for `jointly`

    @property
    def plausible(self) -> tuple[float, float]:
        """Least and greatest temperature tried whose mean lies within one standard error of the best."""
        best = int(np.argmin(self.values))
        slack = 0.0 if np.isnan(self.errors[best]) else self.errors[best]
        near = self.grid[self.values <= self.values[best] + slack]
        return float(near.min()), float(near.max())

    @property
    def at_edge(self) -> bool:
        """Whether the least value is at an end of the grid: the minimum may lie outside."""
        best = float(self.grid[int(np.argmin(self.values))])
        return best in (float(self.grid.min()), float(self.grid.max()))

    def as_record(self) -> Record:
        """What this result says of itself."""
        facts: dict[str, Any] = {}
        if self.by == "jointly":
            facts["training loss"] = (
                f"{figure(self.objective, 6)}, from eps = {figure(self.grid[0])}"
            )
        else:
            low, high = map(figure, self.plausible)
            facts["objective"] = (
                f"{figure(self.objective, 6)} at the choice, of {len(self.grid)} tried"
            )
            facts["within one standard error"] = f"{low} to {high}"
        edge = "AT THE EDGE of the temperatures tried: try more beyond it"
        return Record(
            f"eps = {figure(self.eps, 5)} by {self.by}",
            _WORDS[self.by],
            facts=facts,
            notes=(edge,) if self.by != "jointly" and self.at_edge else (),
            trace=tuple(self.values),
        )


Losses = Callable[[Float[Array, ""]], Float[Array, " samples"]]


@admits(eps=">= 0")
def by_validation(losses: Losses, eps: Sequence[float] | Real[ArrayLike, " trials"]) -> Choice:
    """The tried temperature with the least mean held-out loss.

    `losses(eps)`: the loss of every held-out sample, of one layer read at `eps` or of one trained
    there: whatever it does is the caller's, and called once a temperature.

    **Raises:** `ValueError` for no or negative temperatures, or losses that are not finite.
    """
    return _least("validation", losses, eps)


@admits(eps=">= 0")
def by_bound(bounds: Losses, eps: Sequence[float] | Real[ArrayLike, " trials"]) -> Choice:
    """The tried temperature with the least mean of a certified bound; as `by_validation`.

    `bounds(eps)`: for every sample an upper bound on its loss, such as the worst loss within a
    radius, from [`change`][hjcontrol.analysis.robustness.change].
    """
    return _least("bound", bounds, eps)


class _Heated(AbstractStage):
    """`lse(W x + b, eps)` with `log eps` among the weights."""

    layer: LSE

    def step(self, x, theta):
        W, b, log_eps = theta
        return LSE(W, b, jnp.exp(log_eps))(x)[None]

    def init(self, key: Key[Array, ""]):
        del key
        return self.layer.W, self.layer.b, jnp.log(self.layer.eps.astype(self.layer.b.dtype))


@renamed(method="solver")
def jointly(
    layer: AnyHead,
    inputs: Float[Array, "n d"],
    targets: Float[Array, " n"],
    solver: Any,
    *,
    max_steps: int = 500,
) -> Choice:
    """Train `W`, `b` and `log eps` together on the squared error, from `layer`.

    `solver`: `hj.solvers.Gradient(optax.lbfgs())` say. Only a loss of the *value* can
    choose: weights pi do not change when W, b and eps are all multiplied by a number, so a loss of
    pi alone leaves eps undetermined.

    **Raises:** `ValueError` for `eps = 0` (it has no logarithm).
    """
    from hjcontrol.solvers import solve

    layer = affine_head_of("jointly", layer)
    if not float(layer.eps) > 0:
        raise ValueError("jointly: a start with eps > 0 is needed; found eps = 0.")
    problem = ControlProblem([_Heated(layer)], inputs, targets[:, None], terminal=least_squares)
    start = problem.init(jax.random.key(0))  # the layer itself: nothing is drawn
    found = solve(problem, solver, init=start, max_steps=max_steps, throw=False)
    W, b, log_eps = problem.chain.unstack(found.weights)[0]
    trained = LSE(W, b, jnp.exp(log_eps))
    ends = np.array([float(layer.eps), float(trained.eps)])
    losses = np.array([float(problem.objective(start)), float(found.objective)])
    nothing = np.full(2, np.nan)
    return Choice(trained.eps, found.objective, "jointly", ends, losses, nothing, trained)


def _least(by: str, losses: Losses, eps: Sequence[float] | Real[ArrayLike, " trials"]) -> Choice:
    grid = np.asarray(eps, float)
    if grid.ndim != 1 or grid.size == 0 or not (grid >= 0).all():
        raise ValueError(f"temperature: a list of eps >= 0 is needed; found {eps}.")
    rows = [np.asarray(losses(jnp.asarray(e))) for e in grid]
    if any(row.ndim != 1 or row.size == 0 for row in rows):
        raise ValueError(f"temperature: one loss a sample is needed; found shape {rows[0].shape}.")
    values = np.array([row.mean() for row in rows])
    if not np.isfinite(values).all():
        at = grid[~np.isfinite(values)][0]
        raise ValueError(
            f"temperature: losses must be finite; found one that is not at eps = {at}."
        )
    errors = np.array(
        [row.std(ddof=1) / np.sqrt(row.size) if row.size > 1 else np.nan for row in rows]
    )
    best = int(np.argmin(values))
    return Choice(jnp.asarray(grid[best]), jnp.asarray(values[best]), by, grid, values, errors)
