r"""Which Hamiltonian makes ReLU?

two atoms, H = |p|^2     y = (0, 2t), g = (0, -t):   x^2/4t - u_0(x, t) = max(x, 0)
H = indicator of [0, 1]  L(v) = max(v, 0), one atom at 0:   u_0(x, t) = max(x, 0)
as published             g = 0 on [0, 5]:   u_0 is dist(x, [0, 5])^2/4
"""

import jax
import numpy as np

from hjcontrol.hamilton_jacobi import BoxIndicator, InitialData, hopf_lax
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence, those
from hjcontrol.reproduction.finding import equal, zero

T = 1.0
X = np.linspace(-2, 2, 500)[:, None]


@jax.jit
def _quadratic(y, g, x):
    return jax.vmap(lambda a: hopf_lax(InitialData(y, g), a, T))(x)


@jax.jit
def _degenerate(y, g, x):
    data = InitialData(y, g)
    return jax.vmap(lambda a: hopf_lax(data, a, T, H=BoxIndicator(0.0, 1.0)))(x)


def _measure(value: float, place: float, degenerate: bool = False) -> Evidence:
    """`degenerate`: H = ι[0,1], from g = 0 on [-5, 0], in place of H = |p|²."""
    relu = np.maximum(X[:, 0], 0.0)
    y = np.linspace(0, 5, 1000)[:, None]
    flat = np.zeros(1000)
    coded = np.asarray(_degenerate(y - 5, flat, X) if degenerate else _quadratic(y, flat, X))
    two = X[:, 0] ** 2 / (4 * T) - np.asarray(
        _quadratic(np.array([[0.0], [2 * T]]), np.array([0.0, value]), X)
    )
    one = np.asarray(_degenerate(np.array([[place]]), np.array([0.0]), X))
    apart = float(np.abs(coded - relu).max())
    return evidence(
        zero("u_0 − ReLU, g = 0 on [0, 5]", apart, 1e-4),
        equal("what test 5 prints", apart, 2.0, 1e-4, role="number", published="2.0000"),
        zero("two atoms − ReLU", two - relu, 1e-14, role="instead"),
        zero("H = ι[0,1], one atom − ReLU", one - relu, 1e-14, role="instead"),
        picture=Picture(
            "Three Hopf–Lax solutions and ReLU.",
            "x",
            "value",
            {"ReLU": (X[:, 0], relu), "as coded": (X[:, 0], coded), "two atoms": (X[:, 0], two)},
        ),
    )


def _control(fast: bool) -> Evidence:
    del fast
    found = _measure(T, 0.1, degenerate=True)
    return Evidence(those(found, "u_0 − ReLU", "two atoms", "H = ι[0,1]"))


CLAIM = Claim(
    id="relu-hopf-lax",
    title="ReLU comes out of Hopf–Lax with g = 0 on the half line",
    source="verify.py test 5",
    published="The Hopf–Lax solution from g = 0 on [0, 5] with H = |p|² is ReLU.",
    precise="It is dist(x, [0, 5])²/4t. ReLU is x²/4t − u_0 for two atoms y = (0, 2t), g = (0, "
    "−t); or u_0 itself for H = ι[0,1], whose Lagrangian is max(v, 0); or a plane wave at ε = 0.",
    check=lambda fast: _measure(-T, 0.0),
    fault="H is ι[0,1] and g = 0 on [−5, 0]; the second atom's value has the wrong sign and the "
    "single atom is displaced",
    control=_control,
    recorded="fails as stated",
)
