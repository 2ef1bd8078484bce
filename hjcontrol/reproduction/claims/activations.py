r"""The table of activations.

    softplus = lse(x, 0)    sigmoid = its gradient    tanh = pi_+ - pi_-    ReLU = its limit

Of what is called exact, ReLU is exact at eps = 0 only: a two-neuron layer at eps = 1 is softplus.
"""

import jax
import numpy as np

from hjcontrol.deformation import gibbs, lse
from hjcontrol.layers import LSE, Softplus, Tanh
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import zero

X = np.linspace(-4, 4, 81)


@jax.jit
def _two(x, eps):
    stack = lambda a, b: jax.numpy.stack([a, b])
    zero = jax.numpy.zeros_like(x)
    gate = jax.vmap(lambda a, b: gibbs(stack(a, b), eps))
    soft = jax.vmap(lambda a, b: lse(stack(a, b), eps))
    slope = jax.grad(lambda a: soft(a, zero).sum())(x)
    spins = gate(x, -x)
    return soft(x, zero), gate(x, zero)[:, 0], slope, spins[:, 0] - spins[:, 1]


@jax.jit
def _layers(x, eps):
    relu = jax.vmap(LSE(np.array([[1.0], [0.0]]), np.zeros(2), eps))(x[:, None])
    return Softplus(eps).values(x), Tanh(eps)(x), relu


def _measure(shift: float, eps: float) -> Evidence:
    """`shift` of what is compared with; `eps` of the pair that is called ReLU."""
    soft, gate, slope, spin = (np.asarray(a) for a in _two(X, 1.0))
    plus, bend = (np.asarray(a) for a in _layers(X, 1.0)[:2])
    pair = np.asarray(_layers(X, eps)[2])
    hard = np.asarray(_layers(X, 0.0)[2])
    sigmoid = 1 / (1 + np.exp(-X - shift))
    return evidence(
        zero("ReLU − two neurons at ε = 1", pair - np.maximum(X, 0), 1e-12),
        zero("ReLU − two neurons at ε = 0", hard - np.maximum(X + shift, 0), 1e-15, role="amended"),
        zero(
            "softplus − lse(x, 0)",
            np.stack([soft, plus]) - np.log1p(np.exp(X + shift)),
            1e-14,
            role="amended",
        ),
        zero("sigmoid − ∇lse(x, 0)", np.stack([gate, slope]) - sigmoid, 1e-15, role="amended"),
        zero(
            "tanh − (π₊ − π₋)", np.stack([spin, bend]) - np.tanh(X + shift), 1e-14, role="amended"
        ),
    )


def _control(fast: bool) -> Evidence:
    del fast
    return _measure(0.01, 0.0)


CLAIM = Claim(
    id="activations",
    title="ReLU, softplus, sigmoid and tanh belong to the class",
    source="project page, table of activations",
    published="ReLU and softplus are small log-sum-exp layers, sigmoid and tanh their gradients, "
    "all exactly.",
    precise="softplus is the two-atom layer lse(x, 0) (not one neuron), sigmoid its gradient, "
    "tanh the difference of two Gibbs weights. ReLU is the two-atom layer at ε = 0, and ε log 2 "
    "away from it at 0 for any other ε.",
    check=lambda fast: _measure(0.0, 1.0),
    fault="the functions are compared 0.01 apart; and ε is 0 for the first",
    control=_control,
    recorded="holds once amended",
)
