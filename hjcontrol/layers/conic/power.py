r"""The power cone `x^alpha y^beta >= |z|`, x, y >= 0, beta = 1 - alpha, and its pairs on the boundary.

    s = a (e^r, 1, t e^(alpha r)),  z = b n,  n = (alpha e^(-beta r), beta e^(alpha r), -t),  t = 1, -1
    bent = (-e^(-beta r), e^(alpha r), 0),  dn = alpha beta bent dr,  bent.ds = -a e^(alpha r) dr

so along `bent` sigma : tau is b alpha beta : a e^(alpha r). The dual cone is the same in u/alpha,
v/beta, w.
Two faces are flat: s = (x, 0, 0) with z = (0, v, 0), and the other way round. Across them |z|^(1/beta)
bends like a square at beta = 1/2, not at all for beta < 1/2, without bound for beta > 1/2.
As of the exponential cone r, log a and log b are what is kept.
"""

import numpy as np
from jaxtyping import Float, Int

from hjcontrol.layers.conic.cones import Either, namespace

PINNED, CURVED, FREE, FIRST, SECOND = range(5)  # the last two: s along x, along y
FLAT = 1e-6  # of the scale: smaller entries are 0 on a flat face


def outside(v: Float[Either, "k 3"], alpha: float, dual: bool) -> Float[Either, " k"]:
    """How far each row is outside: the shortest of the ways along an axis."""
    xp, beta = namespace(v), 1 - alpha
    x, y, z = v[:, 0], v[:, 1], xp.abs(v[:, 2])
    if dual:
        x, y = x / alpha, y / beta
    sign = xp.maximum(xp.maximum(-x, -y), 0.0)
    px, py = xp.where(x > 0, x, 1.0), xp.where(y > 0, y, 1.0)
    fine = (x > 0) & (y > 0)
    far = xp.where(fine, xp.maximum(z - px**alpha * py**beta, 0.0), z)
    need = xp.where(fine, (z / py**beta) ** (1 / alpha) - px, xp.inf)
    along = xp.where(fine, (z / px**alpha) ** (1 / beta) - py, xp.inf)
    by_axis = xp.maximum(xp.minimum(need, along), 0.0)
    return xp.maximum(sign, xp.minimum(far, by_axis))


def state(u: Float[Either, "k 3"], v: Float[Either, "k 3"], alpha: float) -> Int[Either, " k"]:
    """The face of each pair, in units of the scales."""
    xp, low = namespace(v), 1e-5
    large = lambda w: xp.max(xp.abs(w), axis=1)
    small = lambda w: xp.abs(w) < FLAT
    x, y = (xp.maximum(u[:, k], 0.0) for k in (0, 1))
    gap = x**alpha * y ** (1 - alpha) - xp.abs(u[:, 2])
    pinned = large(u) < low * xp.minimum(1.0, large(v))
    free = (large(v) < low * xp.minimum(1.0, large(u))) & (gap > low)
    flat = small(u[:, 2]) & small(v[:, 2])
    first = flat & small(u[:, 1]) & small(v[:, 0]) & (u[:, 0] > low) & (v[:, 1] > low)
    second = flat & small(u[:, 0]) & small(v[:, 1]) & (u[:, 1] > low) & (v[:, 0] > low)
    found = xp.where(pinned, PINNED, xp.where(free, FREE, CURVED))
    return xp.where(first, FIRST, xp.where(second, SECOND, found))


def on_face(
    k: Int[Either, "k 1"], pair: tuple[Either, Either], units: tuple[Either, Either], alpha: float
) -> tuple[Either, Either]:
    """The pair put on the face of its state."""
    (u, v), (su, sv) = pair, units
    r, a, b, t = _read(u / su, v / sv, u, v, alpha)
    on = _write(r, a, b, t, alpha)
    return _faces(k, (u, v), on, alpha)


def stepped(
    k: Int[Either, "k 1"], pair: tuple, change: tuple, g: Float[Either, "k 3"], alpha: float
) -> tuple[Either, Either]:
    """The pair after a step along its curve; `g` holds the coordinates of `dz`."""
    (u, v), (du, dv) = pair, change
    xp, beta = namespace(v), 1 - alpha
    a, b, t = _nonzero(u[:, 1]), _nonzero(xp.abs(v[:, 2])), _sign(u[:, 2], -v[:, 2])
    r = xp.log(xp.where(u[:, 0] > 0, u[:, 0], 1.0)) - xp.log(xp.where(u[:, 1] > 0, u[:, 1], 1.0))
    dr = g[:, 1] / _bent_size(r, alpha) / (b * alpha * beta)
    db = g[:, 0] / _normal_size(r, alpha) / b
    entry = xp.argmax(xp.abs(u), axis=1)
    options = [
        du[:, 0] / _nonzero(u[:, 0]) - dr,
        du[:, 1] / a,
        du[:, 2] / _nonzero(u[:, 2]) - alpha * dr,
    ]
    da = xp.take_along_axis(xp.stack(options, axis=1), entry[:, None], axis=1)[:, 0]
    clip = lambda w: xp.clip(w, -3.0, 3.0)
    on = _write(r + clip(dr), a * xp.exp(clip(da)), b * xp.exp(clip(db)), t, alpha)
    return _faces(k, (u + du, v + dv), on, alpha)


def directions(
    k: Int[Either, " k"], u: Float[Either, "k 3"], v: Float[Either, "k 3"], alpha: float
) -> tuple[Either, Either, Either]:
    """Directions, and sigma and tau along each."""
    xp, beta = namespace(v), 1 - alpha
    x, y = (xp.where(u[:, i] > 0, u[:, i], 1.0) for i in (0, 1))
    b, t = _nonzero(xp.abs(v[:, 2])), _sign(u[:, 2], -v[:, 2])
    r, one = xp.log(x) - xp.log(y), xp.ones_like(u[:, 0])
    zero = 0 * one
    down, up = xp.exp(-beta * r), xp.exp(alpha * r)
    normal = xp.stack([alpha * down, beta * up, -t], 1) / _normal_size(r, alpha)[:, None]
    bent = xp.stack([-down, up, zero], 1) / _bent_size(r, alpha)[:, None]
    ray = xp.stack([xp.exp(r), one, t * up], 1)
    ray = ray / xp.max(xp.abs(ray), axis=1, keepdims=True)
    c = xp.stack([normal, bent, ray], axis=1)
    bend = y * up / (b * alpha * beta) / _bent_size(r, alpha) ** 2
    sigma, tau = xp.stack([one, one, zero], 1), xp.stack([zero, bend, one], 1)
    for face, i, j, power in ((FIRST, 0, 1, beta), (SECOND, 1, 0, alpha)):
        on = (k == face)[:, None]
        held, let = [zero, zero, one], [zero, zero, zero]
        let[i], held[j] = one, one
        if power == 0.5:
            let[2] = u[:, i] / (2 * _nonzero(v[:, j]))
        elif power < 0.5:
            held[2], let[2] = zero, one
        c = xp.where(on[:, :, None], xp.eye(3, dtype=u.dtype)[None], c)
        sigma = xp.where(on, xp.stack(held, 1), sigma)
        tau = xp.where(on, xp.stack(let, 1), tau)
    return c, sigma, tau


def _faces(k: Either, pair: tuple, on: tuple, alpha: float) -> tuple[Either, Either]:
    """`on` where curved; exact zeros on all other faces."""
    xp, found = namespace(pair[0]), []
    for w, curve, none, axes, flat in (
        (pair[0], on[0], PINNED, ((FIRST, 0, 1 - alpha), (SECOND, 1, alpha)), lambda p: p > 0.5),
        (pair[1], on[1], FREE, ((FIRST, 1, 1 - alpha), (SECOND, 0, alpha)), lambda p: p < 0.5),
    ):
        new = xp.where(k == CURVED, curve, xp.where(k == none, 0.0, w))
        for face, axis, power in axes:
            gone = np.arange(3) == 1 - axis
            gone[2] = flat(power)
            new = xp.where((k == face) & gone[None], 0.0, new)
        found.append(new)
    return found[0], found[1]


def _read(us: Either, vs: Either, u: Either, v: Either, alpha: float) -> tuple:
    """`r, a, b, t` of a pair near the curve, each from the entries that know it best."""
    xp, beta = namespace(v), 1 - alpha
    tiny = float(np.finfo(u.dtype).tiny)
    log = lambda w: xp.log(xp.maximum(w, tiny))
    primal = xp.minimum(us[:, 0], us[:, 1]) >= xp.minimum(vs[:, 0], vs[:, 1])
    r = xp.where(
        primal,
        log(u[:, 0]) - log(u[:, 1]),
        log(v[:, 1]) - log(v[:, 0]) + float(np.log(alpha) - np.log(beta)),
    )
    cap = 700.0 if u.dtype == np.float64 else 80.0
    r = xp.clip(r, -cap, cap)
    a = xp.where(us[:, 1] >= us[:, 0], u[:, 1], u[:, 0] * xp.exp(-r))
    b = xp.where(
        vs[:, 1] >= vs[:, 0],
        v[:, 1] * xp.exp(-alpha * r) / beta,
        v[:, 0] * xp.exp(beta * r) / alpha,
    )
    t = xp.where(
        xp.abs(us[:, 2]) >= xp.abs(vs[:, 2]), _sign(u[:, 2], -v[:, 2]), _sign(-v[:, 2], u[:, 2])
    )
    return r, xp.maximum(a, tiny), xp.maximum(b, tiny), t


def _write(r: Either, a: Either, b: Either, t: Either, alpha: float) -> tuple[Either, Either]:
    xp, beta = namespace(r), 1 - alpha
    down, up = xp.exp(-beta * r), xp.exp(alpha * r)
    return (
        a[:, None] * xp.stack([xp.exp(r), xp.ones_like(r), t * up], axis=1),
        b[:, None] * xp.stack([alpha * down, beta * up, -t], axis=1),
    )


def _sign(first: Either, second: Either) -> Either:
    """Of the first number, or of the second where the first is 0."""
    xp = namespace(first)
    chosen = xp.where(first == 0, second, first)
    return xp.where(chosen < 0, -1.0, 1.0).astype(first.dtype)


def _nonzero(v: Either) -> Either:
    return namespace(v).where(v == 0, 1.0, v)


def _normal_size(r: Either, alpha: float) -> Either:
    xp = namespace(r)
    ends = xp.maximum(alpha * xp.exp((alpha - 1) * r), (1 - alpha) * xp.exp(alpha * r))
    return xp.maximum(1.0, ends)


def _bent_size(r: Either, alpha: float) -> Either:
    xp = namespace(r)
    return xp.maximum(xp.exp((alpha - 1) * r), xp.exp(alpha * r))
