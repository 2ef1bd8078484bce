"""A network as an exact tree of affine leaves, hard at eps = 0 and soft above it."""

from hjcontrol.analysis.tree.agreement import Agreement, agreement
from hjcontrol.analysis.tree.model_tree import ModelTree, model_tree
from hjcontrol.analysis.tree.piecewise import Block, PiecewiseAffine, piecewise_affine
from hjcontrol.analysis.tree.soft import SoftTree, soft_tree

__all__ = [
    "Agreement",
    "Block",
    "ModelTree",
    "PiecewiseAffine",
    "SoftTree",
    "agreement",
    "model_tree",
    "piecewise_affine",
    "soft_tree",
]
