r"""Every route to a layer's derivative, side by side, sample by sample.

    closed      Danskin: the layer's own rule
    implicit    the KKT system at the solution, differentiated, a linear solve
    unrolled    plain differentiation through the iterations of Newton on the dual
    differences central, with an estimate of their own error
    others      whatever the caller brings

`implicit` and `unrolled` belong to the layer's kind of program: see `engines.table`.

The reference is the route that the others agree with best, not one taken on trust. Disagreement is
norm-wise relative per sample; differences are held to their own estimate of error.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Quantity, Record, Told
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers.engines import kind_of
from hjcontrol.layers.layer import AbstractConvexLayer

ROUTES = ("closed", "implicit", "unrolled", "differences")
BAD = ("refuted", "not a number")  # how a verdict begins that is no agreement
FLOOR = {"float64": 1e-290, "float32": 1e-30}  # norms under it are not judged


@renamed(tolerance="tol")
class GradientTable(Told, Shown):
    """What `hj.compare_gradients` returns. `gradients[route]` has the shape of `z`.

    `errors[route]`: `(batch,)`, relative to the reference route; for `differences` in units of their
    own error estimate. `verdict`: per sample `agree`, `flat` (every gradient is 0), `underflow`
    (every gradient's norm is below 1e-290), `refuted: ROUTE, ...`, or `not a number` (no route has a
    finite gradient, or the logits are none: nothing was compared).
    """

    gradients: dict[str, Float[Array, "*shape"]]
    errors: dict[str, np.ndarray]
    verdict: np.ndarray
    reference: np.ndarray
    smallest: np.ndarray
    tol: float
    missing: tuple[str, ...]
    title: str

    @property
    def agree(self) -> bool:
        """Whether every sample was compared, and no route is refuted at any."""
        return not any(str(v).startswith(BAD) for v in self.verdict)

    def as_record(self) -> Record:
        """What this result says of itself."""
        bad = np.array([str(v).startswith(BAD) for v in self.verdict])
        order = np.argsort(~bad, kind="stable")
        row = lambda i: {
            "sample": int(i),
            "smallest p": Quantity(float(self.smallest[i]), 2),
            **{name: Quantity(float(e[i]), 2) for name, e in self.errors.items()},
            "verdict": str(self.verdict[i]),
        }
        refuted = any(str(v).startswith("refuted") for v in self.verdict)
        head = "all agree" if self.agree else "refuted" if refuted else "not a number"
        lacks = f"no such route for this layer: {', '.join(self.missing)}"
        return Record(
            f"Gradients of {self.title}",
            f"{head}   ({len(bad)} samples; relative error, tolerance {self.tol:.0e}; "
            "differences in units of their own error)",
            verdict=head,
            tone="good" if self.agree else "bad",
            rows={"": [row(i) for i in order]},
            notes=(lacks,) if self.missing else (),
        )


@renamed(tolerance="tol")
@admits(tol=">= 0")
def compare_gradients(
    layer: AbstractConvexLayer,
    z: Real[ArrayLike, "*shape"],
    cotangent: Real[ArrayLike, "*shape"] | None = None,
    *,
    others: Mapping[str, Callable[[Any], Any]] | None = None,
    tol: float | None = None,
) -> GradientTable:
    """Gradients of `cotangent . layer(z)` by every route that the layer has, compared.

    **Arguments:**

    - `z`: one sample, or a batch on the leading axis (`(batch, n)`).
    - `cotangent`: of the same shape; by default a fixed vector without symmetries.
    - `others`: functions that claim to compute the same argmax, each differentiated by JAX and held
      against the routes: `{"jax.nn": lambda z: jax.nn.softmax(z / eps)}`.
    - `tol`: relative, per sample; 1e-10 in float64, 1e-4 in float32.

    **Returns:** [`GradientTable`][hjcontrol.layers.GradientTable]; print it.

    **Raises:** `ValueError` if `z` and `cotangent` differ in shape.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> table = hj.compare_gradients(hj.layers.Softmax(0.5), jnp.array([[0.3, -0.2]]))
        >>> type(table).__name__
        'GradientTable'
    """
    z = floating(z)
    batch = z if z.ndim > 1 else z[None]
    g = _generic(batch) if cotangent is None else floating(cotangent).astype(z.dtype)
    if g.size != z.size or (cotangent is not None and g.shape != z.shape):
        raise ValueError(
            f"compare_gradients: `cotangent` must have the shape of `z`, {z.shape}; found {g.shape}."
        )
    g = g.reshape(batch.shape)
    if tol is None:
        tol = 1e-10 if z.dtype == jnp.float64 else 1e-4
    routes, missing = _routes(layer, others or {})
    found, slopes, error, smallest = _measured(layer, routes, batch, g)
    found = {name: found[name] for name in routes}
    asked = np.asarray(batch).reshape(len(batch), -1)
    sound = ~(np.isnan(asked) | np.isposinf(asked)).any(axis=1)
    errors, verdict, reference = _judge(found, slopes, error, tol, z.dtype, sound)
    found["differences"] = slopes
    return GradientTable(
        gradients={k: v.reshape(z.shape) for k, v in found.items()},
        errors=errors,
        verdict=verdict,
        reference=reference,
        smallest=np.asarray(smallest),
        tol=tol,
        missing=tuple(missing),
        title=type(layer).__name__,
    )


def _routes(layer: Any, others: Mapping[str, Callable]) -> tuple[dict[str, Callable], list[str]]:
    """Every route as a function of `(layer, z, g)`, and the names of those that the layer lacks."""
    kind = kind_of(layer)
    own = {"closed": closed, "implicit": kind.implicit, "unrolled": _unrolled(kind.newton)}
    foreign = {
        name: lambda layer, z, g, f=f: jax.vjp(f, z)[1](g)[0]  # somebody else's function of z
        for name, f in others.items()
    }
    missing = [name for name, rule in own.items() if rule is None]
    return {k: rule for k, rule in own.items() if rule is not None} | foreign, missing


def closed(layer: AbstractConvexLayer, z: Array, g: Array) -> Array:
    """By the layer's own differentiation rule, in reverse mode."""
    return jax.vjp(layer, z)[1](g)[0]


def _unrolled(newton: Callable[..., Array] | None) -> Callable[..., Array] | None:
    """Through the iterations of Newton on the dual, differentiated as they stand, in reverse mode."""
    if newton is None:
        return None
    return lambda layer, z, g: jax.vjp(lambda z: newton(layer, z), z)[1](g)[0]


def differences(
    layer: AbstractConvexLayer, z: Float[Array, "*shape"], g: Float[Array, "*shape"], rungs: int = 8
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Central differences of `g.layer(z)`, extrapolated, at the step whose estimated error is least;
    and that estimate. Steps fall by fours from a tenth of the temperature."""
    eps = jnp.asarray(layer.eps, z.dtype).ravel()
    scale = jnp.where(eps[0] > 0, eps[0], 1.0)
    unit = jnp.finfo(z.dtype).eps
    flat, weight = z.ravel(), g.ravel()

    def along(j: Array, h: Array) -> tuple[Array, Array]:
        bump = jnp.where(jnp.arange(flat.size) == j, h, 0.0)
        up, down = flat + bump, flat - bump
        width = up[j] - down[j]  # as represented
        there, here = layer(up.reshape(z.shape)).ravel(), layer(down.reshape(z.shape)).ravel()
        slope = jnp.sum(jnp.where(weight == 0, 0.0, weight * (there - here))) / width
        size = jnp.sum(jnp.abs(weight) * (jnp.abs(there) + jnp.abs(here)))
        # The answers inherit the roundoff of their argument, magnified by the layer's own slope.
        noise = unit * size * (4.0 + 4.0 * jnp.abs(flat[j]) / scale) / width
        return slope, noise

    steps = 0.1 * scale * 4.0 ** -jnp.arange(rungs, dtype=z.dtype)
    whole = jax.vmap(lambda j: jax.vmap(lambda h: along(j, h))(steps))(jnp.arange(flat.size))
    half = jax.vmap(lambda j: jax.vmap(lambda h: along(j, 0.5 * h))(steps))(jnp.arange(flat.size))
    best = (4.0 * half[0] - whole[0]) / 3.0
    error = jnp.abs(half[0] - whole[0]) + 3.0 * (whole[1] + half[1])
    k = jnp.argmin(error, axis=1)
    pick = lambda table: jnp.take_along_axis(table, k[:, None], axis=1)[:, 0].reshape(z.shape)
    return pick(best), pick(error)


@eqx.filter_jit
def _measured(layer: Any, routes: Mapping[str, Callable], z: Array, g: Array) -> tuple:
    """One compilation: gradients by every route, differences with their error, the least weight."""

    def one(z: Array, g: Array) -> tuple:
        found = {name: rule(layer, z, g) for name, rule in routes.items()}
        return found, *differences(layer, z, g), jnp.min(layer(z))

    return jax.vmap(one)(z, g)


def _judge(
    found: dict[str, Array], slopes: Array, error: Array, tol: float, dtype: Any, sound: Any
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    names = list(found)
    rows = np.stack([np.asarray(found[k]).reshape(len(slopes), -1) for k in names])
    sizes = np.linalg.norm(rows, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
        larger = np.maximum(sizes[:, None], sizes[None])
        apart = np.where(larger == 0, 0.0, apart / np.where(larger > 0, larger, 1.0))
        apart = np.where(np.isfinite(apart), apart, np.inf)
    best = np.argmin(np.median(apart, axis=1), axis=0)
    samples = np.arange(len(slopes))
    errors = {k: apart[best, j, samples] for j, k in enumerate(names)}
    truth = rows[best, samples]
    flat = lambda a: np.asarray(a).reshape(len(slopes), -1)
    own = np.linalg.norm(flat(error), axis=1)
    off = np.linalg.norm(flat(slopes) - truth, axis=1)
    errors["differences"] = np.where(
        off == 0, 0.0, off / np.where(own > 0, own, np.finfo(float).tiny)
    )
    limits = dict.fromkeys(names, tol) | {"differences": 1.0}
    small = np.all(sizes < FLOOR.get(str(dtype), 0.0), axis=0)
    for k in names:
        errors[k] = np.where(small, 0.0, errors[k])
    verdict = []
    for i in samples:
        if not (sound[i] and np.isfinite(rows[:, i]).all(axis=-1).any()):
            verdict.append("not a number")
            continue
        bad = [k for k in errors if not errors[k][i] <= limits[k]]
        told = f"refuted: {', '.join(bad)}" if bad else "agree"
        flat = "flat" if sizes[:, i].max() == 0 else "underflow"
        verdict.append(flat if small[i] and not bad else told)
    return errors, np.asarray(verdict), np.asarray(names)[best]


def _generic(z: Array) -> Array:
    """Fixed cotangents without symmetries: the fractional parts of multiples of the golden ratio."""
    steps = jnp.arange(1, z.size + 1, dtype=z.dtype)
    return (jnp.mod(steps * 0.6180339887498949, 1.0) - 0.5).reshape(z.shape)
