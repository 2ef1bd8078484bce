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

Norms are Euclidean, radii in the units of the inputs. The certified radius allows for the rounding of
what it is computed from: a margin is taken less by (d + 8) ulp of |W| |x| + |b|, and a radius by
(d + 16) ulp of itself (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). Raising eps lowers
the *bound* on the curvature; the curvature at a point need not fall with it, and M does not depend on
eps at all.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

from hjcontrol._ground.arguments import admits, in_range
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.record import Quantity, Record, Told, figure, one_of_many
from hjcontrol._ground.shown import Shown
from hjcontrol.analysis.robustness.ascent import check_radius, euclidean
from hjcontrol.analysis.robustness.deep import DeepRadius, deep_radius, nearest_kink
from hjcontrol.deformation import gibbs, lse
from hjcontrol.deformation.soft_maximum import checked, floating
from hjcontrol.layers import LSE, ClassHead, LogitHead
from hjcontrol.networks import Trained
from hjcontrol.networks.trained import (
    AnyClassifier,
    AnyHead,
    affine_head_of,
    class_head_of,
    head_of,
)


@admits()
def lipschitz(layer: AnyHead) -> Float[Array, ""]:
    """`M = max_j |W_j|`: the exact Lipschitz constant, whatever `eps` and `b` are."""
    return jnp.max(_lengths(affine_head_of("lipschitz", layer).W))


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
    kink: Float[Array, ""] | None = None  # distance to the nearest kink; None: not known

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
            facts["kinks"] = _kinks(self.kink)
        return Record(f"|hess f| = {figure(self.norm, 6)}", "at this point", facts=facts)


def _kinks(distance: Array | None) -> str:
    """Where the formula ends: a kink has a jump of the slope, which no Hessian holds."""
    if distance is None:
        return "not known: where units have kinks (ReLU), the formula holds between them only"
    if bool(jnp.isnan(distance)):
        return "some units have kinks (ReLU): the formula holds between them only"
    if bool(jnp.isinf(distance)):
        return "none: every unit is smooth"
    return f"the nearest is {figure(distance, 6)} away: the formula holds within, the slope jumps there"


@admits()
def layer_curvature(model: AnyHead, x: Real[ArrayLike, " d"]) -> Curvature:
    """The Hessian at `x`, in its two parts, with the bounds if the model is one affine layer.

    Units with kinks (ReLU) have no second derivative there: the formula is that of the piece that `x`
    lies in, and `kink` says how far the piece reaches.

    **Raises:** `ValueError` for `eps = 0`, where the Hessian is zero or does not exist.
    """
    given, model = model, head_of("layer_curvature", model)
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
    if isinstance(given, LogitHead) and isinstance(given.network, Trained):
        given = given.network
    kink = nearest_kink(given, x) if isinstance(given, Trained) else None
    return Curvature(inner, centred.T @ (pi[:, None] * centred) / eps, sharp, published, kink)


class Change(Shown):
    """Bounds on `f(x + d) - f(x)` over all `|d| <= radius`."""

    lower: Float[Array, ""]
    upper: Float[Array, ""]


@admits(radius=">= 0")
def change(layer: AnyHead, x: Real[ArrayLike, " d"], radius: Real[ArrayLike, ""] | float) -> Change:
    """The most and the least that the output can change by within `radius`: bounds, not estimates.

    The upper one is the better of two, and attained at `eps = 0`.
    """
    check_radius("change", radius)
    layer = affine_head_of("change", layer)
    z = layer.scores(x)
    eps = layer.eps.astype(z.dtype)
    r = jnp.asarray(radius, z.dtype)
    slope = euclidean(layer.slope(x))
    curved = _rise(r, slope, diameter(layer.W), eps, lipschitz(layer))
    raised = lse(z + r * _lengths(layer.W), eps) - lse(z, eps)
    return Change(-slope * r, jnp.minimum(curved, raised))


class Radius(Told, Shown):
    """Certified radius of one prediction, in the units of the inputs: within it no attack succeeds."""

    label: Int[Array, ""]
    rival: Int[Array, ""]  # the class that limits the radius
    margin: Float[Array, ""]  # least score_label - score_b; negative: the label is not predicted
    # The better certificate of the two; 0 where the label is not predicted
    radius: Float[Array, ""]
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


@admits(scale="> 0")
def certified_radius(
    classifier: AnyClassifier,
    x: Real[ArrayLike, " d"],
    label: Int[ArrayLike, ""] | int | None = None,
    *,
    scale: Real[ArrayLike, " d"] | None = None,
) -> Radius | DeepRadius:
    """The radius around `x` within which the class cannot change, by two certificates.

    One affine layer (`LSE`) is certified by its curvature and its atoms; what `from_model` gives, by the
    lines of every unit and by the largest slope (`DeepRadius`).

    - `label`: the class to hold, by default the predicted one. Batch with `jax.vmap`.
    - `scale`: a length for each feature, say its standard deviation. The radius is then that of
      `(x' - x)/scale`; without it all features count alike, whatever their units.

    **Raises:** `ValueError` for one class, or naming the layer of a deep network that has no bounds.
    """
    classifier = class_head_of("certified_radius", classifier)
    if not isinstance(classifier, ClassHead):
        classifier = ClassHead(classifier, list(range(classifier.scores(x).size)))
    network = classifier.head.network if isinstance(classifier.head, LogitHead) else None
    if network is not None and not (
        isinstance(network, Trained) and classifier.count == classifier.classes.size
    ):
        raise ValueError(
            "certified_radius: bounds need an affine layer (LSE) or the layers of a network; found a "
            "LogitHead over a function. State it as `hj.networks.from_model(model)`, or certify its last "
            "layer on its features."
        )
    if classifier.count < 2:
        raise ValueError("certified_radius: at least two classes are needed; found one.")
    if label is not None:
        in_range("certified_radius", "label", label, f">= 0, < {classifier.count}")
    x = checked("certified_radius", x, axes=1, mask=False)
    label = jnp.argmax(classifier.scores(x)) if label is None else jnp.asarray(label)
    if network is not None:
        order = jnp.argsort(classifier.classes)  # class c is the output order[c]
        found = deep_radius(network, x, order[label], scale)
        place = lambda k: classifier.classes[k]
        return eqx.tree_at(
            lambda f: (f.label, f.rival), found, (place(found.label), place(found.rival))
        )
    if scale is not None:
        layer = classifier.head
        by = jnp.asarray(scale, layer.W.dtype)
        classifier = eqx.tree_at(lambda c: c.head.W, classifier, layer.W * by[None, :])
        x = x / by
    return _affine_radius(classifier, x, label)


def _affine_radius(classifier: ClassHead, x: Array, label: Array) -> Radius:
    layer = classifier.head
    z, scores = layer.scores(x), classifier.scores(x)
    eps = layer.eps.astype(z.dtype)
    apart = jnp.where(classifier.members, z[None, :], -jnp.inf)
    slopes = gibbs(apart, eps, axis=1) @ layer.W
    slope, score = slopes[label], scores[label] - _rounding(layer, x, eps)
    shorter = 1.0 - (x.size + 16) * jnp.finfo(z.dtype).eps
    away = _lengths(layer.W - slope[None, :])

    def against(members: Array, logits: Array, own: Array, other: Array) -> tuple[Array, ...]:
        margin = score - other
        start = euclidean(slope - own)
        steepest = jnp.max(jnp.where(members, away, 0.0))
        quarter = diameter(layer.W, members)
        reach = lambda D: _reach(margin, start, D, eps, steepest)
        raised = lambda r: lse(logits + jnp.where(members, r * away, 0.0), eps)
        far = jnp.min(jnp.where(members, _ratio(jnp.maximum(score - logits, 0.0), away), jnp.inf))
        return margin, reach(quarter), _below(raised, score, far), reach(2 * lipschitz(layer))

    found = jax.vmap(against)(classifier.members, apart, slopes, scores)
    others = jnp.arange(classifier.count) != label
    margin, curved, atoms, published = (jnp.where(others, a, jnp.inf) for a in found)
    held = jnp.min(margin) > 0
    margin = jnp.where(others, scores[label] - scores, jnp.inf)  # as computed
    best = jnp.where(others, jnp.maximum(curved, atoms), jnp.inf)
    least = lambda a: jnp.where(held, shorter * jnp.min(a), 0.0)
    return Radius(
        label=label,
        rival=jnp.argmin(jnp.where(held, best, margin)),
        margin=jnp.min(margin),
        radius=least(best),
        by_curvature=least(curved),
        by_atoms=least(atoms),
        published=least(published),
    )


def _rounding(layer: LSE, x: Array, eps: Array) -> Array:
    """A bound on what two computed scores together are off by."""
    unit = jnp.finfo(layer.W.dtype).eps
    sizes = jnp.max(jnp.abs(layer.W) @ jnp.abs(x) + jnp.abs(layer.b))
    return unit * ((x.size + 8) * sizes + 4 * eps * jnp.log(layer.b.size + 1.0))


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
