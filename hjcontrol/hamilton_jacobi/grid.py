r"""A uniform grid in one or two dimensions: where the witness lives.

    x_k = lower + k h,    k = 0 .. n-1        h = (upper - lower)/n        periodic axis
                                              h = (upper - lower)/(n - 1)  otherwise: both ends are points

Beyond a periodic axis the function repeats. Beyond another it is extrapolated, by the straight line
through its last two points (`extrapolation = 1`) or the parabola through its last three (`2`). With the
line the scheme `first` stays monotone wherever characteristics leave; with the parabola quadratic data
are exact. Either is a guess where characteristics come in: it travels inwards at the speed `|dH/dp|`, and
the parabola may then grow without bound. Let the grid reach to where they leave.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown

GHOSTS = 3  # points beyond each end, as many as the widest stencil reads


Corner = Real[ArrayLike, "..."] | Sequence[float | int] | float


@admits(lower="finite", upper="finite", shape=">= 1", extrapolation=">= 0")
class Grid(Shown):
    """`shape` points between `lower` and `upper`, one number an axis.

    `periodic`: one flag for all axes, or one an axis. `extrapolation`: 1 or 2, for the other axes.

    **Raises:** `ValueError` for other than one or two axes, fewer than 8 points, or empty bounds.
    """

    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    periodic: tuple[bool, ...] = eqx.field(static=True)
    extrapolation: int = eqx.field(static=True)

    def __init__(
        self,
        lower: Corner,
        upper: Corner,
        shape: Int[ArrayLike, "..."] | Sequence[int] | int,
        *,
        periodic: bool | Sequence[bool] = False,
        extrapolation: int = 1,
    ):
        self.lower, self.upper = (tuple(map(float, np.atleast_1d(a))) for a in (lower, upper))
        self.shape = tuple(int(n) for n in np.atleast_1d(shape))
        flags = np.atleast_1d(periodic)
        self.periodic = tuple(
            map(bool, np.repeat(flags, len(self.shape) if len(flags) == 1 else 1))
        )
        self.extrapolation = extrapolation

    def __check_init__(self):
        return _check(self)

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """`h` of every axis."""
        return tuple(
            (b - a) / (n if wraps else n - 1)
            for a, b, n, wraps in zip(
                self.lower, self.upper, self.shape, self.periodic, strict=True
            )
        )

    @property
    def points(self) -> Float[Array, "*shape d"]:
        """All points, in the default floating type."""
        axes = [
            a + h * jnp.arange(n)
            for a, h, n in zip(self.lower, self.spacing, self.shape, strict=True)
        ]
        return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)

    def extended(self, u: Float[Array, "*shape"], axis: int) -> Float[Array, "*longer"]:
        """`u` with `GHOSTS` points more at both ends of `axis`."""
        n = u.shape[axis]
        part = lambda a, b: jnp.asarray(u[(slice(None),) * axis + (slice(a, b),)])
        if self.periodic[axis]:
            return jnp.concatenate([part(n - GHOSTS, n), u, part(0, GHOSTS)], axis=axis)
        shape = [1] * u.ndim
        shape[axis] = GHOSTS
        k = jnp.arange(1, GHOSTS + 1, dtype=u.dtype).reshape(shape)

        def beyond(a, b, c):  # the polynomial through the end a and its neighbours, k steps out
            if self.extrapolation == 1:
                return a + k * (a - b)
            return a + k * (a - b) + k * (k + 1) / 2 * (a - 2 * b + c)

        before = jnp.flip(beyond(part(0, 1), part(1, 2), part(2, 3)), axis)
        after = beyond(part(n - 1, n), part(n - 2, n - 1), part(n - 3, n - 2))
        return jnp.concatenate([before, u, after], axis=axis)


def _check(grid: Grid):
    lengths = [len(a) for a in (grid.lower, grid.upper, grid.shape, grid.periodic)]
    if len(set(lengths)) > 1 or lengths[0] not in (1, 2):
        raise ValueError(
            "Grid: one or two axes are needed, and as many numbers in lower, upper, shape and "
            f"periodic; found {lengths}. In more dimensions evaluate without a grid."
        )
    for a, b, n in zip(grid.lower, grid.upper, grid.shape, strict=True):
        if not (np.isfinite(a) and np.isfinite(b) and a < b):
            raise ValueError(f"Grid: finite lower < upper is needed; found {a} and {b}.")
        if n < 8:
            raise ValueError(f"Grid: at least 8 points an axis are needed; found {n}.")
    if grid.extrapolation not in (1, 2):
        raise ValueError(
            f"Grid: extrapolation is 1 (line) or 2 (parabola); found {grid.extrapolation}."
        )
