r"""The limit through depth:   ||F_eps - F_0|| <= sum_l eps log N_l prod_{k>l} max_j ||W^(k)_j||_1.

Two published layers (test 4) and random stacks of 1, 2, 4 and 6 layers of two atoms a unit.
"""

import jax
import numpy as np

from hjcontrol.layers import Softplus
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import at_most, equal

EPS = (0.5, 0.2, 0.1, 0.05, 0.01, 0.001)
TEST_4 = (0.37492, 0.13870, 0.068866, 0.034209, 0.0064909, 0.00034166)
W1, B1, W2 = np.array([1.5, -1.0, 0.8]), np.array([0.3, 0.5, -0.4]), np.full(3, 0.5)


@jax.jit
def _units(z, eps):
    return Softplus(eps).values(z)


def _two_layers(eps: float) -> np.ndarray:
    x = np.linspace(-2, 2, 500)
    return np.asarray(_units(x[:, None] * W1 + B1, eps)) @ W2


def _measure(share: float) -> Evidence:
    hard = _two_layers(0.0)
    apart = [float(np.abs(_two_layers(e) - hard).max()) for e in EPS]
    over = []
    for depth in (1, 2, 4, 6):
        rng = np.random.default_rng(depth)
        stack = [(rng.standard_normal((6, 6)) / 2, rng.standard_normal(6)) for _ in range(depth)]
        x, eps = rng.uniform(-2, 2, (200, 6)), 0.3
        soft, sharp, bound = x, x, 0.0
        for W, b in stack:
            soft = np.asarray(_units(soft @ W.T + b, eps))
            sharp = np.maximum(sharp @ W.T + b, 0)
            bound = bound * np.abs(W).sum(1).max() + eps * np.log(2)
        over.append(float(np.abs(soft - sharp).max() - share * bound))
    return evidence(
        at_most("two layers, test 4", apart, [share * e * np.log(2) * 1.5 for e in EPS]),
        at_most("above the bound, depth 1, 2, 4, 6", over, 0.0),
        equal(
            "test 4",
            apart,
            TEST_4,
            1e-5,
            role="number",
            published="0.375, 0.139, 0.0689, 0.0342, 6.5e-3, 3.4e-4",
        ),
    )


def _control(fast: bool) -> Evidence:
    del fast
    return Evidence(_measure(0.1).findings[:2])


CLAIM = Claim(
    id="depth-error",
    title="The error of the tropical limit adds up through depth",
    source="verify.py test 4",
    published="A deep soft network tends to the deep ReLU network as ε → 0.",
    precise="In the maximum norm by at most Σ_l ε log N_l · Π_{k>l} max_j ‖W_j^(k)‖₁; 1.5 ε log 2 "
    "for test 4. True, and loose.",
    check=lambda fast: _measure(1.0),
    fault="the bound is a tenth",
    control=_control,
    recorded="holds within its bound",
)
