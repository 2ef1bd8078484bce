r"""Which atoms made this output, and which inputs? Exact removal, shares of classes, costates by layer.

    f = lse(z, eps)        d f/d b_j = pi_j         mass m_j at atom j:  d f/d m_j = eps pi_j/m_j
    remove atoms S         f_{-S} - f = eps log(1 - pi_S),  pi_S = sum over S of pi_j       exact
                                      = -eps pi_S + O(pi_S^2)                         first order
    share of class c       p_c = pi_S of its atoms S,   f_{-c} - f = eps log(1 - p_c)

    layer by layer, along x(s) = x_0 + s (x - x_0), states x_k(s), costates p_k(s) = d out/d x_k:
    A_k = int_0^1 p_k(s) * dx_k/ds ds      sum A_k = out(x) - out(x_0) at every depth, up to quadrature

`pi_j` is the sensitivity to atom j, not to a training point, unless the atoms are the training points.
At k = 0 the costate attribution is integrated gradients. The pairing p_k . dx_k/ds is the same number at
every depth, so what quadrature leaves of completeness is too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.record import Quantity, Record, Told, figure, one_of_many
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import gibbs, lse
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers import LSE, ClassHead
from hjcontrol.networks import Chain, Weights, advance
from hjcontrol.networks.trained import AnyClassifier, AnyHead, affine_head_of, head_of

__all__ = ["Attribution", "LayerAttribution", "attribute", "costates", "pruned", "without"]


def __dir__() -> list[str]:
    return __all__


class Attribution(Told, Shown):
    """What each atom did for one output. Weights are shares; removals have the units of the logits."""

    value: Float[Array, ""]
    logits: Float[Array, " atoms"]
    weights: Float[Array, " atoms"]  # pi_j = d f/d b_j
    removal: Float[Array, " atoms"]  # f without atom j, less f: exact
    mass: Float[Array, " atoms"]  # d f/d m_j at mass one: eps pi_j; minus the removal's first order
    shares: Float[Array, " classes"] | None  # p_c
    class_removal: Float[Array, " classes"] | None  # f without the atoms of class c, less f
    eps: Float[Array, ""]

    def top(self, count: int = 5) -> list[int]:
        """The atoms with the largest weights, largest first."""
        return np.argsort(-np.asarray(self.weights), kind="stable")[:count].tolist()

    def as_record(self) -> Record:
        """What this result says of itself."""
        if self.value.ndim:
            return one_of_many(self, self.value.shape)
        row = lambda j: {
            "atom": j,
            "weight": self.weights[j],
            "without it (exact)": Quantity(self.removal[j], 6),
            "first order": -self.mass[j],
        }
        rows = {"": [row(j) for j in self.top()]}
        if self.shares is not None and self.class_removal is not None:
            best = np.argsort(-np.asarray(self.shares), kind="stable")[:3].tolist()
            rows["classes"] = [
                {
                    "class": c,
                    "share": self.shares[c],
                    "f without it": Quantity(self.class_removal[c], 6),
                }
                for c in best
            ]
        return Record(
            f"f = {figure(self.value, 6)}",
            f"from {self.weights.size} atoms at eps = {figure(self.eps)}",
            rows=rows,
        )


@admits()
def attribute(model: AnyClassifier, x: Real[ArrayLike, "..."]) -> Attribution:
    """Weights, exact removals and shares for one sample; batch with `jax.vmap`.

    A removal is exact for the atoms as they stand: nothing is trained again.
    """
    head = model.head if isinstance(model, ClassHead) else head_of("attribute", model)
    z = head.scores(x)
    eps = head.eps.astype(z.dtype)
    pi = gibbs(z, eps)
    value = lse(z, eps)
    shares = class_removal = None
    if isinstance(model, ClassHead):
        scores = model.scores(x)
        shares, class_removal = gibbs(scores, eps), _removal(scores, eps)
    return Attribution(value, z, pi, _removal(z, eps), eps * pi, shares, class_removal, eps)


@admits()
def without(
    model: AnyHead, x: Real[ArrayLike, "..."], removed: Bool[ArrayLike, " atoms"]
) -> Float[Array, ""]:
    """`f(x)` without the `removed` atoms, from the weights: `f + eps log(1 - sum of theirs)`.

    The mass that stays is summed from the others' weights, so nothing cancels while any is left that
    does not underflow; below that the answer is `-inf` times nothing: use
    [`pruned`][hjcontrol.analysis.attribution.pruned] and evaluate.

    **Raises:** `ValueError` if `removed` has another shape, or is everything.
    """
    model = head_of("without", model)
    z = model.scores(x)
    removed = jnp.asarray(removed)
    if removed.shape != z.shape or removed.dtype != bool:
        raise ValueError(
            f"without: a boolean an atom is needed, {z.shape}; found {removed.shape}, {removed.dtype}."
        )
    if known_to_fail(~jnp.all(removed)):
        raise ValueError("without: every atom is removed. Keep at least one.")
    eps = model.eps.astype(z.dtype)
    stays = jnp.sum(jnp.where(removed, 0.0, gibbs(z, eps)))
    soft = lse(z, eps) + eps * jnp.log(jnp.where(stays > 0, stays, 1.0))
    return jnp.where((eps > 0) & (stays > 0), soft, lse(jnp.where(removed, -jnp.inf, z), eps))


@admits()
def pruned(layer: AnyHead, atoms: Sequence[int]) -> LSE:
    """The layer with these atoms really taken out: fewer rows, fewer biases.

    **Raises:** `ValueError` for an atom that does not exist, or when none would be left.
    """
    layer = affine_head_of("pruned", layer)
    size = layer.b.size
    gone = {int(j) for j in atoms}
    if not gone <= set(range(size)) or len(gone) == size:
        raise ValueError(
            f"pruned: atoms of 0 .. {size - 1} are needed, not all of them; found {sorted(gone)[:8]}."
        )
    kept = np.array([j for j in range(size) if j not in gone])
    return LSE(layer.W[kept], layer.b[kept], layer.eps)


class LayerAttribution(Told, Shown):
    """Attributions `A_k` of the input of every stage, and of the final state, by runs of equal stages."""

    runs: tuple[PyTree[Array], ...]  # one entry a run: leaves (length, *state)
    final: PyTree[Array]
    totals: Float[Array, " depths"]  # sum of A_k, k = 0 .. K
    difference: Float[Array, ""]  # out(x) - out(x_0)

    @property
    def defect(self) -> Float[Array, "*batch"]:
        """Completeness: largest `|sum A_k - difference|` over the depths."""
        return jnp.max(jnp.abs(self.totals - self.difference))

    @property
    def inputs(self) -> PyTree[Array]:
        """`A_0`, the attribution of the network's inputs: integrated gradients."""
        return jax.tree.map(lambda a: a[0], self.runs[0])

    def as_record(self) -> Record:
        """What this result says of itself."""
        if self.difference.ndim:
            return one_of_many(self, self.difference.shape)
        return Record(
            "Costate attribution",
            f"at {self.totals.size} depths",
            facts={
                "out(x) - out(x_0)": Quantity(self.difference, 8),
                "completeness defect": Quantity(self.defect, 2),
                "depths apart": Quantity(jnp.max(self.totals) - jnp.min(self.totals), 2),
            },
            lead=("out(x) - out(x_0)", "completeness defect", "depths apart"),
        )


@admits(nodes=">= 1")
def costates(
    chain: Chain,
    weights: Weights,
    x: PyTree[Array],
    baseline: PyTree[Array],
    output: Callable[[PyTree[Array]], Float[Array, ""]],
    *,
    given: tuple[PyTree, ...] | None = None,
    nodes: int = 32,
) -> LayerAttribution:
    """Attribute `output(final state)` of one sample to the states at every depth.

    - `output`: what is explained, a scalar of the final state: a logit, a margin, a soft maximum.
    - `baseline`: the input `x_0` that explains nothing, shaped as `x`.
    - `given`: what the stages read besides their state, one entry a run, as `chain.given` returns it.
    - `nodes`: Gauss-Legendre nodes of the path; exact for polynomials of degree `2 nodes - 1`.

    **Raises:** `ValueError` for no nodes, or a baseline that does not match.
    """
    if nodes < 1:
        raise ValueError(f"costates: at least one node is needed; found {nodes}.")
    shapes = [jax.tree.map(jnp.shape, a) for a in (x, baseline)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"costates: the baseline must be shaped as x, {shapes[0]}; found {shapes[1]}."
        )
    x, baseline = jax.tree.map(floating, (x, baseline))
    along = jax.tree.map(lambda a, b: a - b, x, baseline)
    at, weight = np.polynomial.legendre.leggauss(nodes)

    def path(s: Array) -> tuple[tuple, Any]:
        return chain.states(weights, jax.tree.map(lambda b, v: b + s * v, baseline, along), given)

    def one(s: Array, w: Array) -> tuple[tuple, Any]:
        (states, last), (moves, final) = jax.jvp(path, (s,), (jnp.ones_like(s),))
        p = jax.grad(output)(last)
        product = lambda p, v: jax.tree.map(lambda a, b: w * a * b, p, v)

        def back(r: int, p: Any, stage: Any, th: Any, u: Any, a: Any, v: Any) -> tuple[Any, Any]:
            (p,) = jax.vjp(lambda a: advance(stage, a, th, u), a)[1](p)
            return p, product(p, v)

        _, parts = chain.fold(back, p, weights, states, moves, given=given, reverse=True)
        return parts, product(p, final)

    dtype = jnp.result_type(*jax.tree.leaves(x))
    s, w = jnp.asarray(0.5 * (at + 1.0), dtype), jnp.asarray(0.5 * weight, dtype)
    runs, final = jax.tree.map(lambda a: jnp.sum(a, axis=0), jax.vmap(one)(s, w))
    rows = lambda tree: sum(
        jnp.sum(a.reshape(a.shape[0], -1), axis=1) for a in jax.tree.leaves(tree)
    )
    totals = jnp.concatenate([*map(rows, runs), rows(jax.tree.map(lambda a: a[None], final))])
    ends = [output(chain(weights, a, given)) for a in (x, baseline)]
    return LayerAttribution(runs, final, totals, ends[0] - ends[1])


def _removal(z: Array, eps: Array) -> Array:
    """`eps log(1 - pi_j)`, without cancellation where `pi_j` is near one; `-inf` for a lone atom."""
    pi = gibbs(z, eps)
    first = jnp.arange(z.size) == jnp.argmax(z)
    rest = lse(jnp.where(first, -jnp.inf, z), eps) - lse(z, eps)
    small = eps * jnp.log1p(-jnp.where(first, 0.0, pi))
    return jnp.where(first, rest, small)
