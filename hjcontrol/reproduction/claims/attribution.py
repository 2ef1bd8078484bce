r"""pi_j as attribution:

    df/db_j = pi_j;
    without atom j
    f_{-j} - f = eps log(1 - pi_j),  to first order -eps pi_j.

Atoms are really removed. Page's phase diagram: sixteen atoms (RandomState(42)), t = 1.
"""

import jax
import numpy as np

from hjcontrol.analysis.attribution import attribute
from hjcontrol.deformation import gibbs, gibbs_entropy
from hjcontrol.hamilton_jacobi import InitialData, layer_of_data
from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.claims.setting import plane
from hjcontrol.reproduction.finding import at_least, equal, zero

EPS = (0.05, 0.25, 3.0)
PLACES = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [0.3, -0.2]])
ENTROPIES = (
    (1.6863, 2.0534, 2.6732),
    (0.6890, 1.6887, 2.7570),
    (1.8506, 2.3099, 2.7509),
    (0.3474, 1.6604, 2.7584),
)


@jax.jit
def _state(y, g, x, eps, asked):
    W, b = layer_of_data(InitialData(y, g), 1.0)
    z = x @ W.T + b[None]
    each = lambda f: jax.vmap(lambda a: f(a, eps))(z)
    value = jax.vmap(LSE(W, b, eps))(x)
    slopes = jax.vmap(jax.grad(lambda b, a: LSE(W, b, eps)(a)), (None, 0))(b, x)
    without = jax.vmap(lambda drop: jax.vmap(LSE(W, b + drop, eps))(x))
    gone = without(jax.numpy.where(jax.numpy.eye(len(g)) > 0, -jax.numpy.inf, 0.0))
    told = jax.vmap(lambda a: attribute(LSE(W, b, asked), a))(x)
    return value, each(gibbs), each(gibbs_entropy), gone, slopes, told.removal, told.weights


def _left_out(retrained: bool) -> float:
    """Correlation, over ten training points, of the change of f without one of them and the change by
    its atom's weight. `retrained`: the layer is fitted, from atoms at the points, again without the
    point; else its atoms are the points as they stand, and one goes."""
    rng = np.random.default_rng(14)
    x = np.sort(rng.uniform(-2, 2, 10))[:, None]
    y, eps, at = x[:, 0] ** 2 / 2 + 0.2 * rng.standard_normal(10), 0.3, np.array([[0.4]])
    W, b = x, y - x[:, 0] ** 2  # the tangent of x^2/2 at each point, moved to its target

    def fitted(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not retrained:
            return W[kept], b[kept]
        return by_hand.least_squares(x[kept], y[kept], W, b, eps, maxiter=300)[1:]

    whole = fitted(np.arange(10))
    value = lambda layer: by_hand.lse(at @ layer[0].T + layer[1], eps)[0]
    weights = np.asarray(attribute(LSE(*whole, eps), at[0]).weights)
    moved = [value(fitted(np.delete(np.arange(10), i))) - value(whole) for i in range(10)]
    return float(np.corrcoef(moved, eps * np.log1p(-weights))[0, 1])


def _measure(exact: bool, heat: float = 1.0, retrained: bool = True) -> Evidence:
    """`heat`: times the temperature at which the tool is asked."""
    y, g = plane()
    left, tool, slope, entropies, labels = [], [], [], [], []
    for eps in EPS:
        f, pi, H, gone, db, told, weights = (
            np.asarray(a) for a in _state(y, g, PLACES, eps, heat * eps)
        )
        change = eps * np.log1p(-pi) if exact else -eps * pi
        left.append(np.abs(gone.T - f[:, None] - change).max())
        tool.append(np.abs(gone.T - f[:, None] - told).max())
        slope.append(np.abs(np.stack([db - pi, db - weights])).max())
        entropies.append(H)
        labels.append(pi[2] @ g)
    return evidence(
        at_least(
            "correlation of ε log(1 − π_j) with leaving training point j out",
            _left_out(retrained),
            0.9,
        ),
        zero("f without atom j − f − ε log(1 − π_j)", left, 1e-13, role="amended"),
        zero("the same, as the tool tells it", tool, 1e-13, role="amended"),
        zero("∂f/∂b − π", slope, 1e-14, role="amended"),
        equal(
            "H at four places, three ε",
            np.array(entropies).T,
            np.ravel(ENTROPIES),
            1e-4,
            role="number",
        ),
        equal("E_π[g] at (1, 1)", labels, [0.988, 0.869, 0.579], 1e-3, role="number"),
    )


CLAIM = Claim(
    id="attribution",
    title="Gibbs weights attribute a prediction to its atoms",
    source="main text, attribution; phase_diagram.py",
    published="π_j(x; ε) is a closed-form influence function in O(N).",
    precise="Of atoms, exactly: ∂f/∂b_j = π_j, and removal changes f by ε log(1 − π_j). Not of "
    "training points: leaving one out and training again moves f otherwise, though each atom began at a "
    "point. Where the atoms are the points and nothing is trained, the two are one.",
    check=lambda fast: _measure(True),
    fault="nothing is trained; the first-order change −επ_j is taken for the exact one; and the tool is "
    "asked a tenth too hot",
    control=lambda fast: Evidence(_measure(False, 1.1, retrained=False).findings[:4]),
    recorded="holds once amended",
)
