r"""Pooling: the largest of each window, hard or soft.

    pooled_i = lse(x over window i, eps),        max-pool at eps = 0        d pooled_i/dx = its weights

A window is a row of logits: everything else (certificate, ties, cvxpy) is that of `RowSoftmax` at
`pool.windows(x)`. At `eps = 0` tied entries share the derivative equally.
"""

import itertools
import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import checked, temperature
from hjcontrol.layers.rows import RowSoftmax


@admits(eps=">= 0")
class Pool(Shown):
    """Log-sum-exp pooling over windows of one sample `x`; no padding, every window lies inside."""

    held: ClassVar[tuple[str, ...]] = ("eps",)
    eps: Float[Array, ""] = eqx.field(converter=temperature)
    window: tuple[int, ...] = eqx.field(static=True)
    stride: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        eps: float | Float[Array, ""],
        window: tuple[int, ...],
        stride: tuple[int, ...] | None = None,
    ):
        """`stride` defaults to `window`. **Raises:** `ValueError` unless both are positive integers."""
        stride = window if stride is None else stride
        if len(stride) != len(window) or min(*window, *stride, 1) < 1:
            raise ValueError(
                "Pool: `window` and `stride` must be equally many positive integers; found "
                f"{window} and {stride}."
            )
        self.eps, self.window, self.stride = eps, tuple(window), tuple(stride)

    @property
    def layer(self) -> RowSoftmax:
        """The convex layer that acts on the windows."""
        return RowSoftmax(self.eps)

    def windows(self, x: Real[ArrayLike, "*space"]) -> Float[Array, "windows cells"]:
        """The entries of each window, one window a row."""
        x = checked("Pool", x, axes=len(self.window), mask=False)
        return x.ravel()[self._cells(x.shape)]

    def __call__(self, x: Real[ArrayLike, "*space"]) -> Float[Array, "*pooled"]:
        """The pooled array."""
        windows = self.windows(x)
        return self.layer.values(windows).reshape(self._extent(jnp.shape(x)))

    def _extent(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rows = zip(shape, self.window, self.stride, strict=True)
        extent = tuple((n - w) // s + 1 for n, w, s in rows)
        if min(extent) < 1:
            raise ValueError(f"Pool: a window of {self.window} does not fit into shape {shape}.")
        return extent

    def _cells(self, shape: tuple[int, ...]) -> np.ndarray:
        index = np.arange(math.prod(shape)).reshape(shape)
        starts = itertools.product(*(range(n) for n in self._extent(shape)))
        slices = (
            tuple(
                slice(i * s, i * s + w)
                for i, s, w in zip(at, self.stride, self.window, strict=True)
            )
            for at in starts
        )
        return np.stack([index[cut].ravel() for cut in slices])
