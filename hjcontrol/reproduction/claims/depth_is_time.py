r"""Is one more layer one more step of the semigroup?

Convexity answers: the flow keeps the layer convex for all time (plane waves), and two layers with a
negative
outer weight are not convex. Operators on functions compose; maps of inputs compose otherwise.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.hamilton_jacobi import plane_waves
from hjcontrol.layers import Softplus
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence, those
from hjcontrol.reproduction.finding import at_least, at_most, zero

X = np.linspace(-3, 3, 241)
W1, B1 = np.array([1.5, -1.0, 0.8]), np.array([0.3, 0.5, -0.4])


@jax.jit
def _stacked(w2, eps):
    units = Softplus(eps)
    return units.values(units.values(X[:, None] * W1 + B1) @ w2)


@jax.jit
def _waves(s, eps):
    return jax.vmap(lambda a: plane_waves(jnp.asarray(W1)[:, None], jnp.asarray(B1), a, s, eps))(
        X[:, None]
    )


def _bend(f: np.ndarray) -> float:
    """The least second difference."""
    return float(np.diff(f, 2).min() / (X[1] - X[0]) ** 2)


def _measure(outer: float) -> Evidence:
    eps = 0.2
    w2 = np.array([0.5, outer, 0.5])
    stacked = np.asarray(_stacked(w2, eps))
    units = lambda z: by_hand.lse(np.stack([z, np.zeros_like(z)], axis=-1), eps)
    times = (0.0, 0.5, 2.0)
    fronts = [np.asarray(_waves(s, eps)) for s in times]
    flow = [_bend(f) for f in fronts]
    hand = [by_hand.lse(X[:, None] * W1 + B1 + s * W1**2, eps) for s in times]
    kept = _bend(np.asarray(_stacked(np.array([0.5, abs(outer), 0.5]), eps)))
    return evidence(
        at_least("least curvature of two layers", _bend(stacked), 0.0, slack=1e-9),
        at_least(
            "least curvature of the flow from one layer", flow, 0.0, slack=1e-9, role="instead"
        ),
        zero(
            "two layers − NumPy",
            stacked - units(units(X[:, None] * W1 + B1) @ w2),
            1e-13,
            role="instead",
        ),
        zero("the flow − NumPy", np.array(fronts) - hand, 1e-13, role="instead"),
        at_least("two layers, outer weights ≥ 0", kept, 0.0, slack=1e-9, role="instead"),
        at_most("ends of the curvature of two layers", _bend(stacked), -0.1, role="instead"),
    )


def _control(fast: bool) -> Evidence:
    del fast
    return Evidence(those(_measure(0.5), "least curvature of two layers", "ends"))


CLAIM = Claim(
    id="depth-is-time",
    title="Each further layer is a further step of the flow",
    source="abstract; main text; training.js evolves the output",
    published="Depth is time: stacking layers composes steps of the Hamilton–Jacobi semigroup.",
    precise="The semigroup composes operators on functions; a network composes maps of inputs. "
    "From a convex layer the flow stays convex for ever; two layers are convex when the outer "
    "weights are ≥ 0, and else need not be.",
    check=lambda fast: _measure(-1.5),
    fault="the outer weight is positive",
    control=_control,
    recorded="fails as stated",
)
