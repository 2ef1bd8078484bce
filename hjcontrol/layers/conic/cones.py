r"""Which rows of `A x + s = b, s in K` belong to which cone.

    K = {0}^zero x R+^nonneg x SOC(d_1) x .. x PSD(p_1) x .. x EXP^exp x POW(alpha_1) x ..

Second order: s_0 >= |s_1..|. PSD(p): the upper triangle, column by column, off-diagonals times sqrt 2.
Exponential: closure of {(x, y, z): y exp(x/y) <= z, y > 0}; its dual holds (u, v, w) with u < 0 and
w >= -u exp(v/u - 1). Power(alpha): x^alpha y^(1 - alpha) >= |z|, x, y >= 0.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.shown import Shown

Either = Any  # an array of NumPy or of JAX


class Cones(Shown):
    """Sizes of the cones, in the order of the rows: equalities, inequalities, second-order cones by
    dimension, semidefinite matrices by side, the number of exponential cones, and power cones by alpha
    (three rows each).

    **Example:**

        >>> import hjcontrol as hj
        >>> hj.layers.Cones(zero=1, soc=(3,), psd=(2,)).rows
        7
    """

    zero: int = eqx.field(static=True)
    nonneg: int = eqx.field(static=True)
    soc: tuple[int, ...] = eqx.field(static=True)
    psd: tuple[int, ...] = eqx.field(static=True)
    exp: int = eqx.field(static=True)
    power: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        zero: Any = 0,
        nonneg: Any = 0,
        soc: Any = (),
        psd: Any = (),
        exp: Any = 0,
        power: Any = (),
    ):
        """**Raises:** `ValueError` for a size that is no whole number, or too small, or an exponent that
        is not between 0 and 1."""
        self.zero, self.nonneg = _count("zero", zero), _count("nonneg", nonneg)
        self.soc, self.psd = _sizes("soc", soc), _sizes("psd", psd)
        self.exp, self.power = _count("exp", exp), _exponents(power)

    @property
    def rows(self) -> int:
        """Rows in all."""
        return (
            self.zero
            + self.nonneg
            + sum(self.soc)
            + sum(p * (p + 1) // 2 for p in self.psd)
            + 3 * (self.exp + len(self.power))
        )

    @property
    def layout(self) -> "Layout":
        """Where the rows of each cone are."""
        return _layout(self.zero, self.nonneg, self.soc, self.psd, self.exp, self.power)

    @property
    def straight(self) -> bool:
        """Whether there are only equalities and inequalities."""
        return self.layout.straight

    def groups(self) -> tuple[tuple[str, Any, np.ndarray], ...]:
        """`(kind, size, rows)` with `rows` of shape (cones, rows of each); equal cones stand together.
        The size of a power cone is its exponent."""
        return self.layout.groups()

    def cut(self, v: Either) -> list[Either]:
        """The blocks of a vector of rows, group by group."""
        return self.layout.cut(v)

    def join(self, blocks: list[Either]) -> Either:
        """The vector of rows of these blocks: the inverse of `cut`."""
        return self.layout.join(blocks)


def _count(name: str, value: Any, least: int = 0) -> int:
    if (type(value) is not int and not isinstance(value, np.integer)) or value < least:
        raise ValueError(
            f"Cones: `{name}` must be a whole number >= {least}; found {shown(value)}."
        )
    return int(value)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        raise ValueError(f"Cones: `{name}` must be a tuple of whole numbers; found {shown(value)}.")
    return tuple(_count(name, v, 1) for v in value)


def _exponents(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (tuple, list)) or not all(
        isinstance(v, (int, float, np.number)) and 0 < v < 1 for v in value
    ):
        raise ValueError(
            f"Cones: `power` must be a tuple of exponents between 0 and 1; found {shown(value)}."
        )
    return tuple(float(v) for v in value)


class Layout:
    """The same for loops in NumPy, where looking up a module's fields would take most of the time."""

    def __init__(self, zero: int, found: list[tuple[str, Any, np.ndarray]]):
        self.zero = zero
        self._groups = tuple(found)
        order = np.concatenate([rows.ravel() for _, _, rows in found] or [np.zeros(0, int)])
        self.rows = order.size
        straight = np.array_equal(order, np.arange(order.size))
        self._order = None if straight else order
        self._back = None if straight else np.argsort(order)

    def groups(self) -> tuple[tuple[str, Any, np.ndarray], ...]:
        return self._groups

    @property
    def straight(self) -> bool:
        """Whether there are only equalities and inequalities."""
        return all(kind in ("zero", "nonneg") for kind, _, _ in self._groups)

    def cut(self, v: Any) -> list[Any]:
        found, at = [], 0
        v = v if self._order is None else v[self._order]
        for _, _, rows in self._groups:
            found.append(v[at : at + rows.size].reshape(*rows.shape, *v.shape[1:]))
            at += rows.size
        return found

    def join(self, blocks: list[Any]) -> Any:
        if not blocks:
            return jnp.zeros(0, jnp.float16)  # which widens no float that it meets
        v = namespace(blocks[0]).concatenate([u.reshape(-1, *u.shape[2:]) for u in blocks])
        return v if self._back is None else v[self._back]


@functools.lru_cache(maxsize=256)
def _layout(
    zero: int,
    nonneg: int,
    soc: tuple[int, ...],
    psd: tuple[int, ...],
    exp: int,
    power: tuple[float, ...],
) -> Layout:
    found, at = [], 0
    for kind, count in (("zero", zero), ("nonneg", nonneg)):
        if count:
            found.append((kind, 1, np.arange(at, at + count)[:, None]))
        at += count
    for kind, sizes in (("soc", soc), ("psd", psd)):
        starts: dict[int, list[int]] = {}
        for p in sizes:
            starts.setdefault(p, []).append(at)
            at += p if kind == "soc" else p * (p + 1) // 2
        for p, firsts in starts.items():
            d = p if kind == "soc" else p * (p + 1) // 2
            if d:
                found.append((kind, p, np.asarray(firsts)[:, None] + np.arange(d)))
    if exp:
        found.append(("exp", 3, at + np.arange(3 * exp).reshape(exp, 3)))
    at += 3 * exp
    for alpha in dict.fromkeys(power):
        firsts = at + 3 * np.flatnonzero(np.asarray(power) == alpha)
        found.append(("power", alpha, firsts[:, None] + np.arange(3)))
    return Layout(zero, found)


WORDS = {
    "zero": "equality",
    "nonneg": "inequality",
    "soc": "second-order cone",
    "psd": "positive semidefinite cone",
    "exp": "exponential cone",
    "power": "power cone",
}


def namespace(v: Any) -> Any:
    """NumPy for its arrays, JAX for all others: the polish runs on either side of the callback."""
    return np if isinstance(v, (np.ndarray, np.generic)) else jnp


def triangle(p: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and factor of each entry of the triangle of a symmetric p x p matrix."""
    i, j = [], []
    for column in range(p):
        for row in range(column + 1):
            i.append(row)
            j.append(column)
    i, j = np.asarray(i, int), np.asarray(j, int)
    return i, j, np.where(i == j, 1.0, np.sqrt(2.0))


def matrix(v: Float[Either, "*k d"], p: int) -> Float[Either, "*k p p"]:
    """The symmetric matrix of a triangle."""
    i, j, factor = triangle(p)
    at, by = np.zeros((p, p), int), np.ones((p, p))
    at[i, j] = at[j, i] = np.arange(i.size)
    by[i, j] = by[j, i] = 1 / factor
    u = v[..., at]
    return u * _fit(by, u)


def vector(M: Float[Either, "*k p p"]) -> Float[Either, "*k d"]:
    """The triangle of a symmetric matrix."""
    i, j, factor = triangle(M.shape[-1])
    u = M[..., i, j]
    return u * _fit(factor, u)


@jax.custom_jvp
def spectrum(M: Float[Array, "k p p"]) -> tuple[Array, Array]:
    """Eigenvalues and vectors. Their derivative, which only a second derivative of the optimum asks
    for, is refused where two eigenvalues are equal: no single basis moves with the matrix there."""
    return tuple(jnp.linalg.eigh(M))


@spectrum.defjvp
def _spectrum_rule(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (M,), (dM,) = primals, tangents
    values, Q = spectrum(M)
    apart = values[:, None, :] - values[:, :, None]
    size = jnp.max(jnp.abs(values), axis=1, initial=0.0)[:, None, None]
    same = jnp.abs(apart) <= float(np.finfo(M.dtype).eps) ** 0.5 * size
    same &= ~np.eye(M.shape[-1], dtype=bool)[None]
    words = (
        "The second derivative of a semidefinite optimum is not found where two eigenvalues of `s` or of "
        "`z` are equal. Move the parameters, or take differences of the first derivative."
    )
    apart = eqx.error_if(apart, jnp.any(same), words)
    turn = jnp.einsum("kji,kjl,klm->kim", Q, dM, Q)
    rates = jnp.where(apart == 0, 0.0, 1 / jnp.where(apart == 0, 1.0, apart))
    return (values, Q), (jnp.diagonal(turn, axis1=1, axis2=2), Q @ (rates * turn))


def _fit(factor: np.ndarray, v: Either) -> np.ndarray:
    """Constants with the dtype and the number of axes of `v`."""
    return factor.astype(v.dtype).reshape((1,) * (v.ndim - factor.ndim) + factor.shape)
