r"""Does the square of limits commute? Width to infinity and eps to zero, measured.

    f(x; eps, N) = eps log sum_j exp(phi_x(y_j)/eps),    phi_x(y) = x.y/(2t) - g(y) - |y|^2/(4t)
    mean-normalised:  f - eps log N        limit:  f_0(x) = sup over Y of phi_x

    -eps log N - C h <= (f - eps log N) - f_0 <= 0,    C = L_g + (R_x + R_Y)/(2t)

h   covering radius of the N atoms in Y    L_g   Lipschitz constant of g    R_x, R_Y   radii of the boxes

So along any path with eps log N -> 0 and h -> 0 the normalised sum converges, in either order. The raw
sum does not: with all phi = 0 and N = e^{1/eps} it is 1 for every eps, and the limit is 0.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Quantity, Record, Told
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import lse


class CommutingSquare(Told, Shown):
    """Sup errors over the points, one row an `eps`, one column an `N`. `print` it."""

    eps: Float[Array, " E"]
    width: Float[Array, " M"]  # N
    covering: Float[Array, " M"]  # h
    normalised: Float[Array, "E M"]  # sup |f - eps log N - f_0|
    raw: Float[Array, "E M"]  # sup |f - f_0|
    bound: Float[Array, "E M"]  # eps log N + C h, of the normalised error

    @property
    def holds(self) -> bool:
        """Whether every normalised error is within its bound."""
        return bool(jnp.all(self.normalised <= self.bound * (1 + 1e-12)))

    def as_record(self) -> Record:
        """What this result says of itself."""
        cell = lambda e, b: f"{float(e):.3e} ({float(b):.1e})"
        row = lambda i: (
            {"eps": Quantity(float(self.eps[i]), 3)}
            | {
                f"N={int(n)}": cell(self.normalised[i, j], self.bound[i, j])
                for j, n in enumerate(np.asarray(self.width))
            }
        )
        return Record(
            "Sup error to the limit",
            "every error within its bound" if self.holds else "a bound is BROKEN",
            verdict="holds" if self.holds else "broken",
            tone="good" if self.holds else "bad",
            rows={"normalised (bound)": [row(i) for i in range(len(self.eps))]},
        )


@admits(t="> 0", eps=">= 0", nodes=">= 1", radius=">= 0", lipschitz="finite")
def commuting_square(
    g: Callable[[Float[Array, " d"]], Float[Array, ""]],
    points: Float[Array, "P d"],
    t: float,
    *,
    eps: Sequence[float],
    nodes: Sequence[int],
    radius: float,
    lipschitz: float,
    limit: Callable[[Float[Array, " d"]], Float[Array, ""]],
) -> CommutingSquare:
    """Measure both sums against the limit on a grid of `eps` and widths.

    **Arguments:**

    - `g`: initial data on the box `Y = [-radius, radius]^d`, with Lipschitz constant `lipschitz`.
    - `points`: where the supremum of the error is taken.
    - `nodes`: nodes a coordinate, midpoints of equal cells; `N = nodes^d` atoms.
    - `limit`: the exact `f_0(x) = sup over Y of phi_x`.

    **Raises:** `ValueError` for `t <= 0`, an `eps <= 0`, no nodes, or points that are not `(P, d)`.
    """
    if not eps or min(eps) <= 0 or not nodes or min(nodes) < 1:
        raise ValueError(
            f"commuting_square: eps > 0 and nodes >= 1 are needed; found {list(eps)}, {list(nodes)}."
        )
    if points.ndim != 2 or points.shape[0] == 0:
        raise ValueError(f"commuting_square: points (P, d) are needed; found {points.shape}.")
    d = points.shape[1]
    exact = jax.vmap(limit)(points)
    reach = jnp.max(jnp.linalg.norm(points, axis=1))
    constant = lipschitz + (reach + radius * np.sqrt(d)) / (2 * t)
    temperatures = jnp.asarray(list(eps), points.dtype)
    normalised, raw, covering = [], [], []
    for m in nodes:  # each width is another shape
        axis = radius * (2 * (np.arange(m) + 0.5) / m - 1)
        atoms = np.stack([a.ravel() for a in np.meshgrid(*[axis] * d, indexing="ij")], axis=1)
        y = jnp.asarray(atoms, points.dtype)
        scores = points @ y.T / (2 * t) - (jax.vmap(g)(y) + jnp.sum(y**2, axis=1) / (4 * t))[None]
        f = jax.vmap(lambda e, scores=scores: lse(scores, e))(temperatures)
        mean = f - temperatures[:, None] * np.log(len(y))
        raw.append(jnp.max(jnp.abs(f - exact[None]), axis=1))
        normalised.append(jnp.max(jnp.abs(mean - exact[None]), axis=1))
        covering.append(radius / m * np.sqrt(d))
    width = jnp.asarray([m**d for m in nodes], points.dtype)
    h = jnp.asarray(covering, points.dtype)
    return CommutingSquare(
        eps=temperatures,
        width=width,
        covering=h,
        normalised=jnp.stack(normalised, axis=1),
        raw=jnp.stack(raw, axis=1),
        bound=temperatures[:, None] * jnp.log(width)[None] + constant * h[None],
    )
