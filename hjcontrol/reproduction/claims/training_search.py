r"""Training searches initial data:

    df/db_j = pi_j,  df/dW_j = pi_j x,  df/dg_j = -pi_j,  df/dy_j = pi_j (x - y_j)/(2t).

(W, b) <-> (y, g) is a bijection with Jacobian [[2t, 0], [-2t W^T, -1]]: a step of descent in one
pair is not a step
in the other.
"""

import jax
import numpy as np

from hjcontrol.hamilton_jacobi import InitialData, data_of_layer, layer_of_data
from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.claims.setting import cloud
from hjcontrol.reproduction.finding import at_least, zero

T, EPS = 0.7, 0.4


@jax.jit
def _slopes(W, b, x):
    of_weights = jax.grad(lambda W, b: LSE(W, b, EPS)(x), argnums=(0, 1))(W, b)
    data = data_of_layer(W, b, T)

    def of_data(y, g):
        W, b = layer_of_data(InitialData(y, g), T)
        return LSE(W, b, EPS)(x)

    return of_weights, jax.grad(of_data, argnums=(0, 1))(data.atoms, data.values), data


def _measure(heat: float, t: float) -> Evidence:
    """By hand, the weights at `heat` times the temperature, and the dictionary at time `t`."""
    W, b = cloud(31, 5, 2)
    x = np.array([0.3, -1.1])
    (dW, db), (dy, dg), data = _slopes(W, b, x)
    pi = by_hand.weights((x @ W.T + b)[None], heat * EPS)[0]
    y, g = np.asarray(data.atoms), np.asarray(data.values)
    new_W, new_b = W - 0.1 * np.asarray(dW), b - 0.1 * np.asarray(db)
    moved = 2 * T * new_W - (y - 0.1 * np.asarray(dy))
    return evidence(
        zero("∂f/∂b − π", np.asarray(db) - pi, 1e-14),
        zero("∂f/∂W − πx", np.asarray(dW) - pi[:, None] * x, 1e-14),
        zero("∂f/∂g + π", np.asarray(dg) + pi, 1e-14),
        zero("∂f/∂y − π(x − y)/2t", np.asarray(dy) - pi[:, None] * (x - y) / (2 * t), 1e-14),
        zero("g + b + t|W|²", g + b + t * (W**2).sum(1), 1e-14),
        at_least(
            "one step of descent in (W, b) and in (y, g), apart by",
            np.abs(moved).max(),
            1e-3,
            role="instead",
        ),
        at_least("and its bias", np.abs(new_b - b).max(), 1e-3, role="instead"),
    )


CLAIM = Claim(
    id="training-search",
    title="Each gradient step chooses initial data",
    source="main text, training",
    published="Training is a search over initial-value problems: each gradient step selects "
    "initial data.",
    precise="Exact and light: the dictionary is a bijection and the gradients are Gibbs weights. "
    "It is not an isometry, so descent in (W, b) is not descent in (y, g): the search depends on "
    "the coordinates.",
    check=lambda fast: _measure(1.0, T),
    fault="the weights are a tenth too hot, and the time is a tenth too long",
    control=lambda fast: Evidence(_measure(1.1, 1.1 * T).findings[:5]),
    recorded="holds exactly",
)
