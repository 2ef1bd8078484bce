r"""What happens far out? The gap, the limit along a ray with its rate, and coverage.

    gap       D(x) = z_(1) - z_(2)             0 <= f - max z <= eps log(1 + (N-1) e^{-D/eps})
    ray       x + r v:  f_inf(v) = max_j W_j.v,  T = its ties,  D_v = least of f_inf(v) - W_j.v off T
              0 <= f(x + rv) - lse_T(x + rv) <= eps log(1 + (N-|T|) e^{-(D_0 + r D_v)/eps})
              entropy -> that of the tied atoms' own weights, at most log |T|
    coverage  pi_j ~ m_j exp(-|x - y_j|^2/(2 w^2)):  distance^2 = E_pi |x - y|^2,
              energy = -log sum_j m_j exp(-|x - y_j|^2/(2 w^2)), in nats

The gap says whether one atom decides, not whether the point is far: on the bisector of two atoms it is
zero at any distance, beside an atom it is large. Far from the data is what the coverage says; for a
layer with initial data at time t, w^2 = 2 eps t and m = e^{-g/eps} make the energy u/eps. The time is
the caller's: a trained layer does not determine it, nor that its atoms lie where the data do.
"""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

from hjcontrol._ground.arguments import admits, in_range
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.record import Record, Told, figure, one_of_many
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import gibbs, gibbs_entropy, lse
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.hamilton_jacobi import data_of_layer
from hjcontrol.networks.trained import AnyHead, affine_head_of, head_of

__all__ = ["Coverage", "Gap", "Ray", "coverage_of_layer", "coverage_of_samples", "gap", "ray"]


def __dir__() -> list[str]:
    return __all__


class Gap(Told, Shown):
    """How far the soft maximum is from its largest logit, and the bound. Units: those of the logits."""

    winner: Int[Array, ""]
    gap: Float[Array, ""]
    deviation: Float[Array, ""]  # f - max z, measured
    bound: Float[Array, ""]  # eps log(1 + (N-1) e^{-gap/eps})
    eps: Float[Array, ""]
    atoms: int = eqx.field(static=True)

    @property
    def dominated(self) -> Bool[Array, "*batch"]:
        """Whether one atom decides: `gap > eps log N`. Its weight is then over `N/(2N - 1)`: more than
        the others' together, with two logits over 2/3."""
        return self.gap > self.eps * jnp.log(self.atoms)

    def as_record(self) -> Record:
        """What this result says of itself."""
        if self.gap.ndim:
            return one_of_many(self, self.gap.shape)
        decides = "decides" if self.dominated else "does not decide alone"
        return Record(
            f"Gap {figure(self.gap)}",
            f"between the first two of {self.atoms} logits, eps = {figure(self.eps)}",
            facts={
                "f - max z": f"{figure(self.deviation, 4)}, bound {figure(self.bound, 4)}",
                f"atom {int(self.winner)}": f"{decides} (which does not say whether x is far from data)",
            },
        )


@admits()
def gap(model: AnyHead, x: Real[ArrayLike, "..."]) -> Gap:
    """The gap of one sample with its bound, at any depth (the logits are all that enters)."""
    model = head_of("gap", model)
    z = model.scores(x)
    eps = model.eps.astype(z.dtype)
    winner = jnp.argmax(z)
    others = jnp.where(jnp.arange(z.size) == winner, -jnp.inf, z)
    apart = z[winner] - jnp.max(others)  # inf with one atom
    rest = lse(others, eps) - z[winner]
    return Gap(
        winner, apart, _log1p(rest, eps), _log1p(_many(z.size - 1, eps) - apart, eps), eps, z.size
    )


class Ray(Told, Shown):
    """The layer along `x + r v`, `r >= 0`. Units: of the logits; slopes, per unit of `r`."""

    slope: Float[Array, ""]  # f_inf(v), the recession function
    tied: Bool[Array, " atoms"]  # atoms that attain it
    gap_slope: Float[Array, ""]  # D_v; inf where every atom ties
    head_start: Float[Array, ""]  # D_0 = lse_T(x) - max of the others at x; may be negative
    intercept: Float[Array, ""]  # lse_T(x): f(x + rv) - r slope tends to it
    entropy: Float[Array, ""]  # limit of the entropy, nats
    eps: Float[Array, ""]

    @property
    def rate(self) -> Float[Array, "*batch"]:
        """Exponential rate of the approach, per unit of `r`: `D_v/eps`."""
        return jnp.where(
            self.eps > 0, self.gap_slope / jnp.where(self.eps > 0, self.eps, 1), jnp.inf
        )

    def limit(self, r: Float[ArrayLike, ""] | float) -> Float[Array, ""]:
        """`lse_T(x + rv)`: what `f(x + rv)` approaches from above."""
        return self.intercept + r * self.slope

    def bound(self, r: Float[ArrayLike, ""] | float) -> Float[Array, ""]:
        """Largest possible `f(x + rv) - limit(r)`."""
        rivals = self.tied.size - jnp.sum(self.tied)
        lead = self.head_start + r * jnp.where(rivals > 0, self.gap_slope, 0.0)
        return jnp.where(rivals > 0, _log1p(_many(rivals, self.eps) - lead, self.eps), 0.0)

    def as_record(self) -> Record:
        """What this result says of itself."""
        if self.slope.ndim:
            return one_of_many(self, self.slope.shape)
        ties, slope = int(jnp.sum(self.tied)), figure(self.slope, 6)
        return Record(
            "Along the ray",
            f"slope {slope}, of {ties} in {self.tied.size} atoms",
            facts={
                "limit": f"f(x + rv) -> {figure(self.intercept, 6)} + {slope} r, from above",
                "excess": f"at most {figure(self.bound(0.0), 3)} at r = 0",
                "rate": f"{figure(self.rate)} per unit of r",
                "entropy": f"-> {figure(self.entropy, 6)} (at most log {ties})",
            },
        )


@admits()
def ray(layer: AnyHead, x: Real[ArrayLike, " d"], v: Real[ArrayLike, " d"]) -> Ray:
    """Limit and rate of the layer from `x` along `v`.

    Slopes that agree to the rounding of `W v` count as tied.

    **Raises:** `ValueError` for `v = 0`, or shapes that disagree.
    """
    layer = affine_head_of("ray", layer)
    z = layer.scores(x)
    v = floating(v).astype(z.dtype)
    if v.shape != layer.W.shape[1:]:
        raise ValueError(f"ray: a direction has shape {layer.W.shape[1:]}; found {v.shape}.")
    if known_to_fail(jnp.any(v != 0)):
        raise ValueError("ray: the direction is zero. Give one that moves.")
    eps = layer.eps.astype(z.dtype)
    slopes = layer.W @ v
    slope = jnp.max(slopes)
    slack = 8 * jnp.finfo(z.dtype).eps * jnp.max(jnp.abs(layer.W) @ jnp.abs(v))
    tied = slopes >= slope - slack
    own = jnp.where(tied, z, -jnp.inf)
    intercept = lse(own, eps)
    return Ray(
        slope=slope,
        tied=tied,
        gap_slope=jnp.min(jnp.where(tied, jnp.inf, slope - slopes)),
        head_start=intercept - jnp.max(jnp.where(tied, -jnp.inf, z)),
        intercept=intercept,
        entropy=gibbs_entropy(own, eps),
        eps=eps,
    )


class Coverage(Shown):
    """Atoms `y` with masses, and a width in the units of the inputs: how far a point is from them."""

    atoms: Float[Array, "N d"]
    log_masses: Float[Array, " N"]
    width: Float[Array, ""]

    def energy(self, x: Real[ArrayLike, " d"]) -> Float[Array, ""]:
        """Minus the logarithm of the kernel sum, in nats: large where nothing is near."""
        return -lse(self._scores(x), 1.0)

    def distance(self, x: Real[ArrayLike, " d"]) -> Float[Array, ""]:
        """Root of the Gibbs-weighted mean square distance to the atoms, in the inputs' units."""
        x = floating(x)
        return jnp.sqrt(gibbs(self._scores(x), 1.0) @ _squares(self.atoms, x))

    def _scores(self, x: Real[ArrayLike, " d"]) -> Float[Array, " N"]:
        x = floating(x)
        if x.shape != self.atoms.shape[1:]:
            raise ValueError(
                f"Coverage: one sample has shape {self.atoms.shape[1:]}; found {x.shape}. "
                "Batch with `jax.vmap`."
            )
        return self.log_masses - _squares(self.atoms, x) / (2 * self.width**2)


@admits(width="> 0")
def coverage_of_samples(
    samples: Real[ArrayLike, "N d"], width: float | Float[Array, ""]
) -> Coverage:
    """Coverage by equal masses at `samples`: inputs, or a network's features of the training inputs.

    **Raises:** `ValueError` for no samples, a width that is not positive.
    """
    samples = floating(samples)
    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(f"coverage_of_samples: samples (N, d) are needed; found {samples.shape}.")
    width = jnp.asarray(width, samples.dtype)
    share = -jnp.log(jnp.asarray(samples.shape[0], samples.dtype))
    return Coverage(samples, jnp.full(samples.shape[0], share), width)


@admits(t="> 0")
def coverage_of_layer(layer: AnyHead, t: float | Float[Array, ""]) -> Coverage:
    """Coverage by the layer's own initial data at the *chosen* time `t`: its energy is `u(x, t)/eps`.

    **Raises:** `ValueError` for `t <= 0` or `eps = 0`.
    """
    layer = affine_head_of("coverage_of_layer", layer)
    in_range("coverage_of_layer", "eps", layer.eps, "> 0")
    eps = layer.eps.astype(layer.W.dtype)
    t = jnp.asarray(t, layer.W.dtype)
    data = data_of_layer(layer.W, layer.b, t)
    return Coverage(data.atoms, -data.values / eps, jnp.sqrt(2 * eps * t))


def _squares(atoms: Array, x: Array) -> Array:
    return jnp.sum((atoms - x[None, :]) ** 2, axis=1)


def _many(count: Array | int, eps: Array) -> Array:
    return eps * jnp.log(jnp.maximum(jnp.asarray(count, eps.dtype), 1.0))


def _log1p(level: Array, eps: Array) -> Array:
    """`eps log(1 + e^{level/eps})`, accurate in both tails; `max(level, 0)` at `eps = 0`."""
    scaled = jnp.abs(level) / jnp.where(eps > 0, eps, 1.0)
    return jnp.maximum(level, 0.0) + jnp.where(eps > 0, eps * jnp.log1p(jnp.exp(-scaled)), 0.0)
