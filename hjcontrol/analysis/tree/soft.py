r"""The exact soft tree of a log-sum-exp layer: a binary tree over its atoms.

    P(left at node v) = sigma((lse(left of v) - lse(right of v))/eps)     pi_j = product on the path to j

lse over a node's atoms, any binary tree whatever: the product is the Gibbs weight exactly. At eps =
0 a node compares the maxima of its two sides, and a point goes to the larger (a tie is shared by
halves).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Record, Told
from hjcontrol._ground.shown import Shown
from hjcontrol.analysis.tree.writing import affine
from hjcontrol.deformation import lse
from hjcontrol.layers import LSE
from hjcontrol.networks.trained import AnyHead, affine_head_of


class SoftTree(Told, Shown):
    """`sides` (nodes, 2, atoms): which atoms hang left and right of each inner node; the root first."""

    layer: LSE
    sides: Bool[np.ndarray, "nodes 2 atoms"] | Bool[Array, "nodes 2 atoms"]

    def split(self, x: Real[Array, " d"]) -> Float[Array, " nodes"]:
        """`P(left)` at each inner node."""
        return self._both(x)[:, 0]

    def _both(self, x: Array) -> Float[Array, "nodes 2"]:
        z, eps = self.layer.scores(x), self.layer.eps
        sums = lse(jnp.where(self.sides, z, -jnp.inf), eps.astype(z.dtype), axis=-1)
        warm = jnp.where(eps > 0, eps, 1.0).astype(z.dtype)
        gap = sums[:, 0] - sums[:, 1]
        soft = jax.nn.sigmoid(jnp.stack([gap, -gap], axis=1) / warm)
        hard = (jnp.stack([jnp.sign(gap), -jnp.sign(gap)], axis=1) + 1) / 2
        return jnp.where(eps > 0, soft, hard)

    def weights(self, x: Real[Array, " d"]) -> Float[Array, " atoms"]:
        """The product of probabilities along each atom's path; `layer.weights(x)` by another route."""
        both = self._both(x)
        return jnp.prod(jnp.where(self.sides, both[:, :, None], 1.0), axis=(0, 1))

    def __call__(self, x: Real[Array, " d"]) -> Float[Array, ""]:
        """The layer's value, `lse` at the root."""
        return self.layer(x)

    def apply(self, X: Real[Array, "n d"]) -> np.ndarray:
        """The likeliest atom of each point (n,)."""
        return np.asarray(jax.vmap(lambda x: jnp.argmax(self.weights(x)))(jnp.asarray(X)))

    def predict(self, X: Real[Array, "n d"]) -> np.ndarray:
        """The layer's value at each point (n,)."""
        return np.asarray(jax.vmap(self)(jnp.asarray(X)))

    def rules(self) -> str:
        """The tree as indented text."""
        lines: list[str] = []
        index = {frozenset(np.flatnonzero(s.any(axis=0))): k for k, s in enumerate(self.sides)}

        def write(atoms: np.ndarray, depth: int) -> None:
            indent = "|   " * depth
            if len(atoms) == 1:
                j = int(atoms[0])
                names = [f"x{k}" for k in range(self.layer.W.shape[1])]
                z = affine(np.asarray(self.layer.W[j]), float(self.layer.b[j]), names, 4)
                lines.append(f"{indent}atom {j}: z = {z}")
                return
            k = index[frozenset(atoms)]
            left, right = (np.flatnonzero(side) for side in self.sides[k])
            said = [",".join(map(str, side)) for side in (left, right)]
            lines.append(f"{indent}P(left) = sigma((lse({said[0]}) - lse({said[1]}))/eps)")
            write(left, depth + 1)
            write(right, depth + 1)

        write(np.arange(self.layer.b.size), 0)
        return "\n".join(lines)

    def as_record(self) -> Record:
        """What this result says of itself."""
        deep = int(self.sides.any(axis=1).sum(axis=0).max(initial=0))
        return Record(
            f"Soft tree over {self.layer.b.size} atoms at eps = {float(self.layer.eps):g}",
            "exact: the product of gates along a path is the atom's Gibbs weight",
            facts={"gates": len(self.sides), "depth": deep},
        )


@admits()
def soft_tree(layer: AnyHead, nesting: Any = None) -> SoftTree:
    """The soft tree of a layer. `nesting`: pairs of pairs of atoms, `((0, 1), 2)`; by default atoms
    are halved along their slopes' widest direction, again and again.

    **Raises:** `ValueError` unless `nesting` holds every atom once, two branches a node.
    """
    layer = affine_head_of("soft_tree", layer)
    n = layer.b.size
    nested = _halved(np.arange(n), np.asarray(layer.W, float)) if nesting is None else nesting
    sides: list[np.ndarray] = []

    def visit(branch: Any) -> list[int]:
        if isinstance(branch, int | np.integer):
            return [int(branch)]
        if not isinstance(branch, tuple | list) or len(branch) != 2:
            raise ValueError(f"soft_tree: each node is a pair; found {branch!r}.")
        here = len(sides)
        sides.append(np.zeros((2, n), bool))
        atoms = [visit(part) for part in branch]
        for side, members in zip(sides[here], atoms, strict=True):
            if members and (min(members) < 0 or max(members) >= n):
                raise ValueError(f"soft_tree: atoms are numbered 0 .. {n - 1}; found {members}.")
            side[members] = True
        return atoms[0] + atoms[1]

    seen = visit(nested)
    if sorted(seen) != list(range(n)):
        raise ValueError(f"soft_tree: each of {n} atoms once is needed; found {sorted(seen)}.")
    return SoftTree(layer, np.array(sides).reshape(-1, 2, n))


def _halved(atoms: np.ndarray, W: np.ndarray) -> Any:
    if len(atoms) == 1:
        return int(atoms[0])
    spread = W[atoms] - W[atoms].mean(axis=0)
    along = spread @ np.linalg.svd(spread, full_matrices=False)[2][0]
    order = atoms[np.argsort(along, kind="stable")]
    middle = len(order) // 2
    return _halved(order[:middle], W), _halved(order[middle:], W)
