r"""f_eps(x) = max over the simplex of p.z + eps H(p), the maximiser is pi;  f*(q) = min{eps sum p
log p - b.p : W^T p = q}.

An interior-point solver, which has no softmax, solves both programs. f + f* = q.x at q = grad f.
A value to 1e-6 determines an argument to its root, 1e-3.
"""

import jax
import numpy as np

from hjcontrol.layers import LSE, Softmax, legendre_as_cvxpy, legendre_value
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.claims.setting import cloud
from hjcontrol.reproduction.finding import at_most, equal, zero

EPS = 0.4


@jax.jit
def _ours(W, b, x, eps):
    layer = LSE(W, b, eps)
    q = layer.slope(x)
    return layer(x), layer.weights(x), q, legendre_value(layer, q)


def _measure(shift: float) -> Evidence:
    W, b = cloud(2, 6, 2)
    x = np.array([0.4, -0.9])
    layer = LSE(W, b, EPS)
    f, pi, q, dual = (np.asarray(a) for a in _ours(W, b, x, EPS))
    primal = Softmax(EPS).as_cvxpy(layer.scores(x + shift))
    primal.solve(solver="CLARABEL")
    p = primal.variables()[0].value
    conjugate = legendre_as_cvxpy(LSE(W, b, EPS + shift), q)
    conjugate.solve(solver="CLARABEL")
    hard = legendre_as_cvxpy(LSE(W, b, 0.0), q)
    hard.solve(solver="CLARABEL")
    multiplier = np.ravel(conjugate.constraints[0].dual_value)
    return evidence(
        equal("value of the program − f", primal.value, float(f), 1e-6),
        zero("its maximiser − π", p - pi, 1e-3),
        equal("conjugate, solver − ours", conjugate.value, float(dual), 1e-6),
        zero("f + f* − q·x at q = ∇f", f + dual - q @ (x + shift), 1e-10),
        zero("multiplier of W'p = q in size − x", np.abs(multiplier) - np.abs(x + shift), 1e-3),
        at_most(
            "f_0* − ε log N − f_ε*",
            hard.value - EPS * np.log(6) - dual,
            0.0,
            slack=1e-6,
            role="instead",
        ),
        at_most("f_ε* − f_0*", dual - hard.value, 0.0, slack=1e-6, role="instead"),
    )


def _control(fast: bool) -> Evidence:
    del fast
    return Evidence(_measure(0.05).findings[:5])


CLAIM = Claim(
    id="convex-duality",
    title="A layer is a linear program over the simplex, regularised by entropy",
    source="main text",
    published="ε is the strength of an entropy regulariser: f_ε(x) = max over p of p·z(x) + "
    "εH(p), attained at π.",
    precise="Exact. f_ε*(q) = min{ε Σ p log p − b·p : p ∈ Δ, W'p = q}, with domain conv{W_j} and "
    "multiplier ∓x; f_0* − ε log N ≤ f_ε* ≤ f_0*.",
    check=lambda fast: _measure(0.0),
    fault="the program is stated 0.05 away from x, and its dual 0.05 hotter",
    control=_control,
    recorded="holds exactly",
)
