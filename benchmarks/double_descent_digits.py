"""Width sweep through the interpolation threshold on scikit-learn's digits, curvature recorded.

Is a digit even? 400 training images (64 pixels), 10 % of their labels flipped, random softplus units with
the fit of minimum norm; beside it the same with ridge, and one trained convex log-sum-exp layer.
"""

import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row
from scipy.optimize import minimize

import hjcontrol as hj
from hjcontrol.layers import LSE
from hjcontrol.reproduction.questions.double_descent import minimum_norm, of_function, width_sweep

WIDTHS = [10, 25, 50, 100, 200, 300, 350, 400, 450, 500, 700, 1000, 2000]


def convex_layer(eps: float):
    """One log-sum-exp layer, all weights trained by L-BFGS-B on the squared error."""

    def fit(X, y, width, key):
        X, y, d = jnp.asarray(X), jnp.asarray(y), X.shape[1]
        read = lambda v: LSE(v[:-width].reshape(width, d), v[-width:], eps)
        loss = lambda v: jnp.mean((jax.vmap(read(v))(X) - y) ** 2)
        both = jax.jit(jax.value_and_grad(loss))
        start = 0.1 * jax.random.normal(key, (width * (d + 1),))
        call = lambda v: tuple(np.asarray(a, float) for a in both(jnp.asarray(v)))
        best = minimize(
            call, np.asarray(start), jac=True, method="L-BFGS-B", options={"maxiter": 500}
        )
        return of_function(read(jnp.asarray(best.x)))

    return fit


if __name__ == "__main__":
    header("Double descent on digits")
    data = hj.data.split(hj.data.load("digits"), 400, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    sides = [np.where(np.asarray(p.targets) % 2 == 0, 1.0, -1.0) for p in (data.train, data.test)]
    noisy = sides[0] * np.where(rng.random(len(sides[0])) < 0.1, -1, 1)
    train = np.asarray(data.train.features), noisy
    test = np.asarray(data.test.features)[:100], sides[1][:100]
    runs = {
        "minimum norm, eps 0.1": (minimum_norm(0.1), WIDTHS, 2),
        "ridge 0.01, eps 0.1": (minimum_norm(0.1, ridge=0.01), WIDTHS, 2),
        "one convex layer, eps 0.1": (convex_layer(0.1), [2, 4, 8, 16, 32], 2),
    }
    for name, (fit, widths, repeats) in runs.items():
        found = width_sweep(train, test, widths, fit, key=jax.random.key(1), repeats=repeats)
        print(name)
        print(found)
        row(
            model=name,
            peak=found.peak,
            curvature_peak=found.curvature_peak,
            together=found.together,
        )
