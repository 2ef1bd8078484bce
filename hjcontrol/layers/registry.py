"""The layers of this room, by name: what tests sweep, what `hjcontrol layers` prints.

A new layer: a class in a file of this room, with its `kind` of program, and an entry here. The tests
then hold it to every law: envelope, Fenchel-Young, biconjugate, sandwich, monotonicity, modulus, the
cvxpy twin, the gradient routes.

Every entry of `REGISTRY` has every engine and every route for `eps > 0`; those of `FURTHER`, layers that
differ by a set, have `closed` and `cvxpy`. At `eps = 0`, where a layer is piecewise
constant and its dual piecewise linear, `engines.lacks(layer, engine)` says which are without meaning, and
why; `Pool` and `Attention` are `RowSoftmax` at their own logits, whose engines and routes they share.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.layers.box import Clip, Huber, LeakyReLU, ReLU, Softplus, Tanh
from hjcontrol.layers.capped import CappedSimplex
from hjcontrol.layers.entmax import Entmax, Sparsemax
from hjcontrol.layers.layer import AbstractConvexLayer
from hjcontrol.layers.permutahedron import Permutahedron
from hjcontrol.layers.potential import LOG, SQUARE
from hjcontrol.layers.prox import BallProjection, GroupSoftThreshold, SoftThreshold
from hjcontrol.layers.regulariser import BinaryEntropy, Shannon, Tsallis
from hjcontrol.layers.rows import RowSoftmax
from hjcontrol.layers.section import Separable
from hjcontrol.layers.sets import AffineSet, HalfSpace, L1BallProjection
from hjcontrol.layers.softmax import Softmax
from hjcontrol.layers.transport import Transport, birkhoff


class Entry(Shown):
    """How to build a layer at a temperature, the shape of a typical sample, and what it computes."""

    build: Callable[[float | Float[Array, ""]], AbstractConvexLayer] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    eps: float = eqx.field(static=True)
    value: str = eqx.field(static=True)
    argmax: str = eqx.field(static=True)


_WEIGHTS = (4.0, 2.5, 1.0, 0.5, -1.0, -2.0)

REGISTRY: dict[str, Entry] = {
    "softmax": Entry(Softmax, (6,), 0.5, "log-sum-exp", "softmax(z/eps)"),
    "max": Entry(Softmax, (6,), 0.0, "max z", "uniform over the maximisers"),
    "sparsemax": Entry(Sparsemax, (6,), 0.7, "-", "projection on the simplex"),
    "entmax": Entry(lambda eps: Entmax(eps, 1.5), (6,), 0.5, "-", "1.5-entmax"),
    "top-k": Entry(
        lambda eps: CappedSimplex(eps, 3), (6,), 0.6, "soft sum of 3 largest", "soft top-3"
    ),
    "softplus": Entry(Softplus, (6,), 0.5, "eps softplus(z/eps)", "sigmoid(z/eps)"),
    "relu": Entry(ReLU, (6,), 0.0, "max(z, 0)", "gate"),
    "leaky-relu": Entry(lambda eps: LeakyReLU(eps, 0.1), (6,), 0.0, "max(z, z/10)", "slope"),
    "tanh": Entry(Tanh, (6,), 0.5, "eps log(2 cosh(z/eps))", "tanh(z/eps)"),
    "hard-tanh": Entry(Clip, (6,), 0.8, "-", "clip(z/eps, -1, 1)"),
    "clip": Entry(lambda eps: Clip(eps, -0.5, 2.0), (6,), 0.8, "-", "clip(z/eps, -0.5, 2)"),
    "huber": Entry(Huber, (6,), 0.5, "Huber's loss of width eps", "clip(z/eps, -1, 1)"),
    "l2-ball": Entry(
        lambda eps: BallProjection(eps, 0.8), (6,), 0.5, "Huber of |z|", "projection on the ball"
    ),
    "linf-ball": Entry(lambda eps: Clip(eps, -0.8, 0.8), (6,), 0.5, "-", "projection on the cube"),
    "soft-threshold": Entry(
        lambda eps: SoftThreshold(eps, 0.6),
        (6,),
        0.5,
        "(|z|-lam)_+^2/2eps",
        "sign(z)(|z|-lam)_+/eps",
    ),
    "group-soft-threshold": Entry(
        lambda eps: GroupSoftThreshold(eps, 1.0), (3, 2), 0.5, "-", "(|z_g|-lam)_+ z_g/|z_g|/eps"
    ),
    "permutahedron": Entry(
        lambda eps: Permutahedron(eps, jnp.array(_WEIGHTS)),
        (6,),
        0.4,
        "soft w.sorted z",
        "soft order",
    ),
    "row-softmax": Entry(RowSoftmax, (3, 2), 0.5, "sum of log-sum-exps", "softmax of rows"),
}

# Closed forms and cvxpy twins; the implicit derivative where the kind is `section`.
FURTHER: dict[str, Entry] = {
    "entropic-top-k": Entry(
        lambda eps: Separable(BinaryEntropy(), eps, total=3), (6,), 0.5, "-", "LML: soft top-3"
    ),
    "capped-softmax": Entry(
        lambda eps: Separable(Shannon(), eps, total=1, hi=jnp.full(6, 0.3)),
        (6,),
        0.5,
        "-",
        "softmax, no entry above 0.3",
    ),
    "capped-sparsemax": Entry(
        lambda eps: Separable(Tsallis(2.0), eps, total=1, hi=jnp.full(6, 0.3)),
        (6,),
        0.5,
        "-",
        "sparsemax, no entry above 0.3",
    ),
    "box-section": Entry(
        lambda eps: Separable(SQUARE, eps, jnp.arange(1.0, 7.0), 2.0, -1.0, 1.0),
        (6,),
        0.8,
        "-",
        "projection on a.p = 2 in a box",
    ),
    "log-barrier": Entry(
        lambda eps: Separable(LOG, eps, total=1), (6,), 0.3, "-", "eps/(lambda - z)"
    ),
    "scaled-simplex": Entry(
        lambda eps: Sparsemax(eps, radius=jnp.asarray(2.0)), (6,), 0.7, "-", "on sum p = 2"
    ),
    "box-of-bounds": Entry(
        lambda eps: Clip(eps, -jnp.arange(1.0, 7.0) / 4, jnp.arange(6.0, 0.0, -1.0) / 4),
        (6,),
        0.8,
        "-",
        "clip(z/eps, lo, hi), each its own",
    ),
    "l1-ball": Entry(
        lambda eps: L1BallProjection(eps, 1.3), (6,), 0.5, "-", "projection on the l1 ball"
    ),
    "half-space": Entry(
        lambda eps: HalfSpace(eps, jnp.arange(1.0, 7.0), 0.5), (6,), 0.5, "-", "on a.p <= b"
    ),
    "affine-set": Entry(
        lambda eps: AffineSet(eps, jnp.stack([jnp.ones(6), jnp.arange(6.0)]), jnp.ones(2)),
        (6,),
        0.5,
        "-",
        "on A p = b",
    ),
    "transport": Entry(
        lambda eps: Transport(eps, jnp.full(2, 0.5), jnp.full(3, 1.0 / 3.0)),
        (2, 3),
        0.3,
        "soft cost",
        "entropic plan",
    ),
    "birkhoff": Entry(
        lambda eps: birkhoff(3, eps), (3, 3), 0.3, "soft assignment", "doubly stochastic"
    ),
}
HEADINGS = ("name", "value", "argmax", "domain", "regulariser", "curvature", "modulus/eps")


@admits(eps=">= 0")
def build(name: str, eps: float | Float[Array, ""] | None = None) -> AbstractConvexLayer:
    """The layer of that name, at `eps` or at the temperature that it is usually shown at.

    **Raises:** `ValueError` for a name that is not registered.
    """
    known = REGISTRY | FURTHER
    if name not in known:
        raise ValueError(f"layers are {', '.join(known)}; found {name!r}.")
    entry = known[name]
    return entry.build(entry.eps if eps is None else eps)


def table() -> list[tuple[str, ...]]:
    """One row a layer, columns as in `HEADINGS`."""
    rows = []
    for name, entry in (REGISTRY | FURTHER).items():
        layer = entry.build(1.0)
        about = (layer.domain, layer.regulariser, layer.curvature, f"{float(layer.modulus):g}")
        rows.append((name, entry.value, entry.argmax, *about))
    return rows
