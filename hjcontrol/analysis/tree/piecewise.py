r"""Piecewise affine maps as blocks of maxima of affine pieces.

    block:  y_g = max over the pieces k of group g of  W_k.x + b_k            network = block after block

A group of one piece is an affine unit; {z, 0} a ReLU; {z, a z} a leaky one; {z, -z} an absolute
value; N pieces a max-affine (maxout) unit, which is a log-sum-exp layer at eps = 0.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.layers import LSE
from hjcontrol.layers.heads import ClassHead
from hjcontrol.networks import Chain, Dense, LSEUnits, Residual
from hjcontrol.networks.trained import Trained

PROBES = np.array([-1e3, -5.3, -1.0, -0.37, 0.37, 1.0, 5.3, 1e3])


class AffineBlock(Shown):
    """Pieces `W` (pieces, in), `b` (pieces,) and the group of each, numbered from 0 in order."""

    W: np.ndarray
    b: np.ndarray
    group: np.ndarray

    def __init__(self, W: Any, b: Any, group: Any):
        """**Raises:** `ValueError` for disagreeing shapes, weights not finite, an empty group."""
        self.W, self.b = np.asarray(W, float), np.asarray(b, float)
        self.group = np.asarray(group, int)
        if self.W.ndim != 2 or self.b.shape != self.W.shape[:1] or self.group.shape != self.b.shape:
            raise ValueError(
                "AffineBlock: W (pieces, in), b (pieces,) and a group for each piece are needed; found "
                f"{self.W.shape}, {self.b.shape}, {self.group.shape}."
            )
        if not (np.isfinite(self.W).all() and np.isfinite(self.b).all()):
            raise ValueError("AffineBlock: finite weights are needed; found NaN or inf.")
        if not np.array_equal(np.unique(self.group), np.arange(self.group.max(initial=-1) + 1)):
            raise ValueError("AffineBlock: groups are numbered 0, 1, ... and each holds a piece.")

    @property
    def units(self) -> int:
        """How many outputs."""
        return int(self.group.max()) + 1


class PiecewiseAffine(Shown):
    """Blocks in order; callable on points (n, d), giving (n, outputs)."""

    blocks: tuple[AffineBlock, ...]

    def __init__(self, blocks: Sequence[AffineBlock]):
        """**Raises:** `ValueError` for no blocks, or neighbours that do not fit."""
        self.blocks = tuple(blocks)
        if not self.blocks:
            raise ValueError("PiecewiseAffine: at least one block is needed; found none.")
        for k, (a, b) in enumerate(itertools.pairwise(self.blocks)):
            if b.W.shape[1] != a.units:
                raise ValueError(
                    f"PiecewiseAffine: block {k + 1} takes {b.W.shape[1]} inputs; block {k} gives "
                    f"{a.units}."
                )

    @property
    def inputs(self) -> int:
        """d."""
        return self.blocks[0].W.shape[1]

    @property
    def outputs(self) -> int:
        """How many outputs."""
        return self.blocks[-1].units

    def __call__(self, points: np.ndarray) -> np.ndarray:
        x = np.asarray(points, float)
        for block in self.blocks:
            z = x @ block.W.T + block.b
            x = np.full((len(x), block.units), -np.inf)
            for g in range(block.units):
                x[:, g] = z[:, block.group == g].max(axis=1)
        return x


@admits()
def piecewise_affine(model: Any, weights: Any = None) -> PiecewiseAffine:
    """The piecewise affine map of a model.

    **Arguments:** `model`: an `LSE` (at eps = 0, whatever its own), a `ClassHead` over one (a
    score a class), what `from_model` gives, a `Chain` of `Dense` and `Residual` stages with its
    `weights`, a list of pairs `(W, b)` (ReLU between, none after the last), or a `PiecewiseAffine`.
    Soft maxima (`LSEUnits`) are read at eps = 0.

    An activation counts as piecewise affine if it is `a z` for z > 0 and `c z` for z < 0 with a >= c,
    judged at eight points from -1000 to 1000.

    **Raises:** `ValueError` for anything else, naming the stage.
    """
    if isinstance(model, PiecewiseAffine):
        return model
    if isinstance(model, Trained):
        model, weights = model
    if isinstance(model, LSE):
        return PiecewiseAffine([AffineBlock(model.W, model.b, np.zeros(model.b.size, int))])
    if isinstance(model, ClassHead) and isinstance(model.head, LSE):
        order = np.argsort(model.classes, kind="stable")
        head = model.head
        return PiecewiseAffine(
            [AffineBlock(head.W[order], head.b[order], np.asarray(model.classes)[order])]
        )
    if isinstance(model, Chain):
        if weights is None:
            raise ValueError("piecewise_affine: a Chain needs its `weights`.")
        stages = [model[k] for k in range(len(model))]
        thetas = model.unstack(weights)
        return PiecewiseAffine(
            [_block(k, s, t) for k, (s, t) in enumerate(zip(stages, thetas, strict=True))]
        )
    if isinstance(model, Sequence) and all(isinstance(p, Sequence) and len(p) == 2 for p in model):
        last = len(model) - 1
        return PiecewiseAffine(
            [_gated(W, b, 1.0, 1.0 if k == last else 0.0) for k, (W, b) in enumerate(model)]
        )
    raise ValueError(
        "piecewise_affine: an LSE, a ClassHead over one, a Chain with weights, a list of (W, b) or "
        f"a PiecewiseAffine is needed; found {type(model).__name__}."
    )


def _gated(W: Any, b: Any, up: float, down: float, skip: float = 0.0) -> AffineBlock:
    """Units `skip x + max(up z, down z)`, `z = W x + b`."""
    W, b = np.asarray(W, float), np.asarray(b, float)
    through = skip * np.eye(*W.shape) if skip else 0.0
    if up == down:
        return AffineBlock(through + up * W, up * b, np.arange(len(b)))
    pieces = np.stack([through + up * W, through + down * W], axis=1)
    offsets = np.stack([up * b, down * b], axis=1)
    return AffineBlock(
        pieces.reshape(-1, W.shape[1]), offsets.ravel(), np.repeat(np.arange(len(b)), 2)
    )


def _block(k: int, stage: Any, theta: Any) -> AffineBlock:
    if not isinstance(stage, Dense | Residual):
        raise ValueError(
            f"piecewise_affine: stage {k} is a {type(stage).__name__}; Dense and Residual are read."
        )
    dense = stage.drift if isinstance(stage, Residual) else stage
    if not isinstance(dense, Dense):
        raise ValueError(
            f"piecewise_affine: stage {k} has a {type(dense).__name__} inside; Dense is read."
        )
    if isinstance(dense.units, LSEUnits) and dense is stage:  # at eps = 0, whatever its own
        return AffineBlock(theta.W, theta.b, np.arange(len(theta.b)) // dense.units.atoms)
    if dense.units.atoms != 1:
        raise ValueError(
            f"piecewise_affine: stage {k} has {dense.units.atoms} atoms a unit; activations are read."
        )
    found = np.asarray(dense.units(jnp.asarray(PROBES)), float)
    up, down = float(found[5]), float(-found[2])
    if not np.allclose(found, np.where(PROBES > 0, up, down) * PROBES, rtol=1e-6) or up < down:
        raise ValueError(
            f"piecewise_affine: stage {k}'s activation is not max(a z, c z): it is "
            f"{np.round(found, 4).tolist()} at {PROBES.tolist()}. ReLU, leaky ReLU, abs and identity are."
        )
    if isinstance(stage, Residual):
        h = float(stage.h)
        return _gated(theta.W, theta.b, h * up, h * down, skip=1.0)
    return _gated(theta.W, theta.b, up, down)
