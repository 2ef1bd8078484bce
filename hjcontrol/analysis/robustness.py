r"""How far can the output move? Lipschitz constant, curvature, certified radius, attack.

    f(x) = lse(W x + b, eps)      grad f = W^T pi      hess f = Cov_pi(W)/eps
    Lipschitz    sup |grad f| = M = max_j |W_j|                            exact, for every eps >= 0
    curvature    |hess f| <= D^2/(4 eps),  D = max_jk |W_j - W_k|          bound, attained by a pair
                 |hess f| <= M^2/eps                                       as published: never better
    change       grad f.d <= f(x+d) - f(x) <= int_0^r min(|grad f| + D^2 s/(4 eps), M) ds,  r = |d|
                             f(x+d)        <= lse_j(z_j + r |W_j|, eps)            exact at eps = 0
    any depth    hess f = E_pi[hess z] + Cov_pi(grad z)/eps                exact; no global bound
    margin       score_a - score_b > 0 as long as one of these holds (D_b, z_k: atoms of class b)
                 int_0^r min(|grad f_a - grad f_b| + D_b^2 s/(4 eps), max_k |grad f_a - W_k|) ds < margin
                 lse_k(z_k + r |grad f_a - W_k|, eps) < score_a

Norms are Euclidean, radii in the units of the inputs. The certificates are proofs in exact arithmetic;
in floating point they carry its rounding. Raising eps lowers the *bound* on the curvature; the curvature
at a point need not fall with it, and M does not depend on eps at all.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key, Real

from hjcontrol._ground.arguments import admits, in_range
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.lazy import lazily
from hjcontrol._ground.record import Quantity, Record, Told, figure, one_of_many
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import gibbs, lse
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers import LSE, ClassHead, LogitHead

__all__ = [
    "Attack",
    "Change",
    "Curvature",
    "Radius",
    "attack",
    "certified_radius",
    "change",
    "diameter",
    "layer_curvature",
    "lipschitz",
]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # old names, for one release
    _RENAMED = {"certify": ":certified_radius", "curvature": ":layer_curvature"}
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)


@admits()
def lipschitz(layer: LSE) -> Float[Array, ""]:
    """`M = max_j |W_j|`: the exact Lipschitz constant, whatever `eps` and `b` are."""
    return jnp.max(_lengths(layer.W))


@admits()
def diameter(
    W: Float[Array, "atoms d"], members: Bool[Array, " atoms"] | None = None
) -> Float[Array, ""]:
    """`D = max_jk |W_j - W_k|`, over the `members` if given; one row of differences at a time."""
    kept = jnp.ones(W.shape[0], bool) if members is None else members

    def row(pair: tuple[Array, Array]) -> Array:
        w, inside = pair
        return jnp.max(jnp.where(kept & inside, _lengths(W - w[None, :]), 0.0))

    return jnp.max(jax.lax.map(row, (W, kept)))


class Curvature(Told, Shown):
    """`hess f` at one point, by its formula. Units: those of the logits over length squared."""

    network: Float[Array, "d d"]  # E_pi[hess z]; zero for an affine layer
    spread: Float[Array, "d d"]  # Cov_pi(grad z)/eps
    sharp: Float[Array, ""]  # bound D^2/(4 eps) for an affine layer; NaN at other depths
    published: Float[Array, ""]  # bound M^2/eps, likewise

    @property
    def hessian(self) -> Float[Array, "*batch d d"]:
        """The sum of both parts."""
        return self.network + self.spread

    @property
    def norm(self) -> Float[Array, "*batch"]:
        """Spectral norm of the Hessian."""
        return jnp.max(jnp.abs(jnp.linalg.eigvalsh(self.hessian)), axis=-1)

    def as_record(self) -> Record:
        """What this result says of itself."""
        if self.sharp.ndim:
            return one_of_many(self, self.sharp.shape)
        facts: dict[str, Any] = {}
        if not bool(jnp.isnan(self.sharp)):
            facts["bound D^2/(4 eps)"] = f"{figure(self.sharp, 6)}  everywhere"
            facts["bound max|W|^2/eps"] = f"{figure(self.published, 6)}  as published"
        else:
            part = jnp.max(jnp.abs(jnp.linalg.eigvalsh(self.network)))
            facts["of which the network's E_pi[hess z]"] = f"{figure(part, 6)}; no global bound"
        return Record(f"|hess f| = {figure(self.norm, 6)}", "at this point", facts=facts)


@admits()
def layer_curvature(model: LSE | LogitHead, x: Real[ArrayLike, " d"]) -> Curvature:
    """The Hessian at `x`, in its two parts, with the bounds if the model is one affine layer.

    **Raises:** `ValueError` for `eps = 0`, where the Hessian is zero or does not exist.
    """
    if known_to_fail(model.eps > 0):
        raise ValueError(
            "layer_curvature: eps > 0 is needed; found eps = 0. Use `lipschitz` there."
        )
    x = floating(x)
    z = model.scores(x)
    eps = model.eps.astype(z.dtype)
    pi = gibbs(z, eps)
    if isinstance(model, LSE):
        slopes, inner = model.W, jnp.zeros((x.size, x.size), z.dtype)
        sharp, published = diameter(model.W) ** 2 / (4 * eps), lipschitz(model) ** 2 / eps
    else:
        slopes = jax.jacfwd(model.scores)(x)
        inner = jax.hessian(lambda a: jax.lax.stop_gradient(pi) @ model.scores(a))(x)
        sharp = published = jnp.full((), jnp.nan, z.dtype)
    centred = slopes - (pi @ slopes)[None, :]
    return Curvature(inner, centred.T @ (pi[:, None] * centred) / eps, sharp, published)


class Change(Shown):
    """Bounds on `f(x + d) - f(x)` over all `|d| <= radius`."""

    lower: Float[Array, ""]
    upper: Float[Array, ""]


@admits(radius=">= 0")
def change(layer: LSE, x: Real[ArrayLike, " d"], radius: Real[ArrayLike, ""] | float) -> Change:
    """The most and the least that the output can change by within `radius`: bounds, not estimates.

    The upper one is the better of two, and attained at `eps = 0`.
    """
    _radius("change", radius)
    z = layer.scores(x)
    eps = layer.eps.astype(z.dtype)
    r = jnp.asarray(radius, z.dtype)
    slope = _length(layer.slope(x))
    curved = _rise(r, slope, diameter(layer.W), eps, lipschitz(layer))
    raised = lse(z + r * _lengths(layer.W), eps) - lse(z, eps)
    return Change(-slope * r, jnp.minimum(curved, raised))


class Radius(Told, Shown):
    """Certified radius of one prediction, in the units of the inputs: within it no attack succeeds."""

    label: Int[Array, ""]
    rival: Int[Array, ""]  # the class that limits the radius
    margin: Float[Array, ""]  # least score_label - score_b; negative: the label is not predicted
    radius: Float[
        Array, ""
    ]  # the better certificate of the two; 0 where the label is not predicted
    by_curvature: Float[Array, ""]
    by_atoms: Float[Array, ""]
    published: Float[Array, ""]  # what max|W|^2/eps in place of D_b^2/(4 eps) would give

    def as_record(self) -> Record:
        """What this result says of itself."""
        if self.radius.ndim:
            return one_of_many(self, self.radius.shape)
        if not self.margin > 0:
            rival, behind = int(self.rival), figure(-self.margin)
            ties = float(self.margin) == 0.0
            return Record(
                f"Class {int(self.label)}",
                f"ties with class {rival}: no radius holds it"
                if ties
                else f"is not predicted: class {rival} scores {behind} more, so nothing is certified",
            )
        return Record(
            f"Class {int(self.label)}",
            f"holds within radius {figure(self.radius, 6)} (certified); margin {figure(self.margin)}, "
            f"rival {int(self.rival)}",
            facts={
                "by curvature, D_b^2/(4 eps)": Quantity(self.by_curvature, 6),
                "by curvature, max|W|^2/eps": f"{figure(self.published, 6)}  as published",
                "by distances of the atoms": Quantity(self.by_atoms, 6),
            },
        )


@admits()
def certified_radius(
    classifier: ClassHead, x: Real[ArrayLike, " d"], label: Int[ArrayLike, ""] | int | None = None
) -> Radius:
    """The radius around `x` within which the class cannot change, by both certificates.

    `label`: the class to hold, by default the predicted one. Batch with `jax.vmap`.

    **Raises:** `ValueError` unless the head is one affine layer: for a deep network certify its
    last layer at its features, and divide by the features' own Lipschitz constant.
    """
    layer = classifier.head
    if not isinstance(layer, LSE):
        raise ValueError(
            "certified_radius: a global bound needs an affine layer (LSE); found a LogitHead. "
            "State the last layer on its features, and divide the radius by the features' "
            "Lipschitz constant."
        )
    if classifier.count < 2:
        raise ValueError("certified_radius: at least two classes are needed; found one.")
    z, scores = layer.scores(x), classifier.scores(x)
    eps = layer.eps.astype(z.dtype)
    if label is not None:
        in_range("certified_radius", "label", label, f">= 0, < {classifier.count}")
    label = jnp.argmax(scores) if label is None else jnp.asarray(label)
    apart = jnp.where(classifier.members, z[None, :], -jnp.inf)
    slopes = gibbs(apart, eps, axis=1) @ layer.W
    slope, score = slopes[label], scores[label]
    away = _lengths(layer.W - slope[None, :])

    def against(members: Array, logits: Array, own: Array, other: Array) -> tuple[Array, ...]:
        margin = score - other
        start = _length(slope - own)
        steepest = jnp.max(jnp.where(members, away, 0.0))
        quarter = diameter(layer.W, members)
        reach = lambda D: _reach(margin, start, D, eps, steepest)
        raised = lambda r: lse(logits + jnp.where(members, r * away, 0.0), eps)
        far = jnp.min(jnp.where(members, _ratio(score - logits, away), jnp.inf))
        return margin, reach(quarter), _below(raised, score, far), reach(2 * lipschitz(layer))

    found = jax.vmap(against)(classifier.members, apart, slopes, scores)
    others = jnp.arange(classifier.count) != label
    margin, curved, atoms, published = (jnp.where(others, a, jnp.inf) for a in found)
    held = jnp.min(margin) > 0
    best = jnp.where(others, jnp.maximum(curved, atoms), jnp.inf)
    least = lambda a: jnp.where(held, jnp.min(a), 0.0)
    return Radius(
        label=label,
        rival=jnp.argmin(jnp.where(held, best, margin)),
        margin=jnp.min(margin),
        radius=least(best),
        by_curvature=least(curved),
        by_atoms=least(atoms),
        published=least(published),
    )


class Attack(Shown):
    """The best step that projected gradient ascent found: a lower bound on what is possible."""

    step: Float[Array, " d"]
    value: Float[Array, ""]
    start: Float[Array, ""]

    @property
    def gain(self) -> Float[Array, "*batch"]:
        """How much the objective rose."""
        return self.value - self.start


@admits(radius=">= 0", steps=">= 0", starts=">= 1")
def attack(
    objective: Callable[[Array], Array],
    x: Real[ArrayLike, " d"],
    radius: Real[ArrayLike, ""] | float,
    *,
    key: Key[Array, ""],
    steps: int = 40,
    starts: int = 4,
) -> Attack:
    """Raise `objective(x + d)` over `|d| <= radius` by projected gradient ascent.

    Each step has a fixed length that falls from `radius` to a hundredth of it, so it can cross the
    ball. The first start is `d = 0`; the others are random points of the sphere.

    **Raises:** `ValueError` for a negative radius, no steps or no starts.
    """
    _radius("attack", radius)
    if steps < 1 or starts < 1:
        raise ValueError(f"attack: steps >= 1 and starts >= 1 are needed; found {steps}, {starts}.")
    x = floating(x)
    r = jnp.asarray(radius, x.dtype)
    rise = jax.value_and_grad(lambda d: objective(x + d))

    def inside(d: Array) -> Array:
        size = _length(d)
        return d * jnp.where(size > r, r / jnp.where(size > 0, size, 1.0), 1.0)

    def ascend(d: Array) -> tuple[Array, Array]:
        def body(carry: tuple[Array, Array, Array], length: Array) -> tuple:
            d, best, top = carry
            value, slope = rise(d)
            better = value > top
            best, top = jnp.where(better, d, best), jnp.where(better, value, top)
            size = _length(slope)
            return (inside(d + length * slope / jnp.where(size > 0, size, 1.0)), best, top), None

        lengths = r * jnp.geomspace(1.0, 0.01, steps, dtype=x.dtype)
        (d, best, top), _ = jax.lax.scan(body, (d, d, rise(d)[0]), lengths)
        value = rise(d)[0]
        return jnp.where(value > top, d, best), jnp.maximum(value, top)

    drawn = jax.random.normal(key, (starts, x.size), x.dtype)
    first = r * drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)
    first = first * (jnp.arange(starts) > 0)[:, None]
    found, values = jax.vmap(ascend)(first)
    best = jnp.argmax(values)
    return Attack(found[best], values[best], objective(x))


def _rise(r: Array, start: Array, D: Array, eps: Array, steepest: Array) -> Array:
    """`int_0^r min(start + D^2 s/(4 eps), steepest) ds`."""
    bend = _bend(start, D, eps, steepest)
    curved = jnp.minimum(r, bend)
    square = jnp.where(eps > 0, D**2 * curved**2 / (8 * jnp.where(eps > 0, eps, 1.0)), 0.0)
    return start * curved + square + steepest * (r - curved)


def _reach(margin: Array, start: Array, D: Array, eps: Array, steepest: Array) -> Array:
    """The `r` at which that integral equals `margin`."""
    bend = _bend(start, D, eps, steepest)
    c = jnp.where(eps > 0, D**2 / (4 * jnp.where(eps > 0, eps, 1.0)), 0.0)
    root = start + jnp.sqrt(start**2 + 2 * c * jnp.maximum(margin, 0.0))
    curved = _ratio(2 * margin, root)  # the stable form of the quadratic's root
    straight = bend + _ratio(margin - _rise(bend, start, D, eps, steepest), steepest)
    return jnp.where(curved <= bend, curved, straight)


def _bend(start: Array, D: Array, eps: Array, steepest: Array) -> Array:
    """Where `start + D^2 s/(4 eps)` reaches `steepest`; 0 for `D = 0`, where the two are equal."""
    length = (steepest - start) * 4 * eps / jnp.where(D > 0, D, 1.0) ** 2
    return jnp.where(D > 0, jnp.maximum(length, 0.0), 0.0)


def _below(f: Callable[[Array], Array], level: Array, far: Array) -> Array:
    """An `r` from below with `f(r) <= level`, for a rising `f`, by bisection of `[0, far]`."""

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        under = f(middle) <= level
        return jnp.where(under, middle, low), jnp.where(under, high, middle)

    top = jnp.where(jnp.isfinite(far), far, 0.0)
    low, _ = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(top), top))
    return jnp.where(jnp.isfinite(far), low, jnp.inf)


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), jnp.inf)


def _lengths(rows: Array) -> Array:
    return jnp.sqrt(jnp.sum(rows**2, axis=1))


def _length(v: Array) -> Array:
    """Length of a vector, with derivative zero at zero."""
    square = jnp.sum(v**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _radius(who: str, radius: ArrayLike) -> None:
    value = known(radius)
    if value is not None and (value.ndim != 0 or not value >= 0):
        raise ValueError(f"{who}: a scalar radius >= 0 is needed; found {value}.")
