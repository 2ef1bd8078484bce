r"""Do the limits eps -> 0 and N -> infinity commute?

Normalised by the mean they do, the raw sum diverges like eps log N.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.layers import commuting_square
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import at_most, equal, zero

EPS, NODES = (0.3, 0.1, 0.03, 0.01), (8, 128)


def _limit(x):
    """sup over [-2, 2] of x y/2 - |y|/2 - y^2/4 (t = 1): at y = x - sign x, or 0, for |x| <= 3."""
    return jnp.maximum(jnp.abs(x[0]) - 1.0, 0.0) ** 2 / 4


@functools.partial(jax.jit, static_argnames="lipschitz")
def _square(x, lipschitz):
    square = commuting_square(
        lambda y: jnp.abs(y[0]) / 2,
        x,
        1.0,
        eps=EPS,
        nodes=NODES,
        radius=2.0,
        lipschitz=lipschitz,
        limit=_limit,
    )
    return square.raw, square.normalised, square.bound


def _measure(lipschitz: float, averaged: bool = False) -> Evidence:
    """`averaged`: what is called raw is normalised by its mean too."""
    x = np.linspace(-2.5, 2.5, 41)[:, None]
    raw, mean, bound = (np.asarray(a) for a in _square(x, lipschitz))
    count = {e: int(np.exp(1 / e)) for e in (0.2, 0.1)}
    ties = [
        float(by_hand.lse(np.zeros((1, n)), e)[0]) - averaged * e * np.log(n)
        for e, n in count.items()
    ]
    error = mean if averaged else raw
    y = np.linspace(-2, 2, 128 + 1)[:-1] + 2 / 128
    z = x * y / 2 - np.abs(y) / 2 - y**2 / 4
    hand = np.abs(
        by_hand.lse(z, 0.1) - 0.1 * np.log(128) - np.maximum(np.abs(x) - 1, 0)[:, 0] ** 2 / 4
    )
    return evidence(
        at_most("raw sum's error along N = e^{1/ε}", ties, 0.1),
        at_most("raw error at ε = 0.3 as N grows", error[0, -1], error[0, 0]),
        at_most(
            "normalised error above ε log N + C h",
            (mean - bound).max(),
            0.0,
            slack=1e-12,
            role="amended",
        ),
        zero("normalised error against NumPy", hand.max() - mean[1, 1], 1e-13, role="amended"),
        equal("f for N = e^{1/ε} ties is 1", ties, [1.0, 1.0], 0.01, role="number"),
    )


def _control(fast: bool) -> Evidence:
    del fast
    return Evidence(_measure(-3.4, averaged=True).findings[:3])


CLAIM = Claim(
    id="commuting-square",
    title="The square of limits commutes",
    source="main text: network, tropical network, viscous and inviscid equation",
    published="ε → 0 and N → ∞ may be taken in either order, for Lipschitz data.",
    precise="True of the sum normalised by its mean: the error is at most ε log N + C h_N with C "
    "= L + (R_x + R_Y)/2t. False of the raw sum: for N = e^{1/ε} equal logits it is 1 for every "
    "ε, and its limit 0.",
    check=lambda fast: _measure(0.5),
    fault="the raw sum is normalised too; and the data are said to have a negative Lipschitz constant",
    control=_control,
    recorded="holds once amended",
)
