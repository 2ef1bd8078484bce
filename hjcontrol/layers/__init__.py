"""A layer is the argmax of a convex program: `value(z) = max over p in C of p.z - eps Omega(p)`."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.deformation import LSE
from hjcontrol.layers.activations import GELU, SiLU
from hjcontrol.layers.attention import Attended, Attention, key_norms
from hjcontrol.layers.box import Clip, Huber, LeakyReLU, ReLU, Softplus, Tanh
from hjcontrol.layers.capped import CappedSimplex
from hjcontrol.layers.certifying import Optimality, certify
from hjcontrol.layers.compare import GradientTable, compare_gradients
from hjcontrol.layers.conic.cones import Cones
from hjcontrol.layers.conic.program import ConicProgram, QuadraticProgram
from hjcontrol.layers.engines import argmax
from hjcontrol.layers.entmax import Entmax, Sparsemax
from hjcontrol.layers.four_faces import Faces, faces
from hjcontrol.layers.heads import ClassHead, LogitHead
from hjcontrol.layers.isotonic_regression import isotonic
from hjcontrol.layers.layer import AbstractConvexLayer, AbstractFace
from hjcontrol.layers.legendre_dual import (
    legendre_as_cvxpy,
    legendre_gap,
    legendre_point,
    legendre_program,
    legendre_value,
)
from hjcontrol.layers.permutahedron import Permutahedron, soft_rank, soft_sort
from hjcontrol.layers.pool import Pool
from hjcontrol.layers.potential import LOG, SQUARE, Potential
from hjcontrol.layers.program import AbstractProgram, Residuals
from hjcontrol.layers.program_layer import ProgramLayer
from hjcontrol.layers.prox import BallProjection, GroupSoftThreshold, SoftThreshold
from hjcontrol.layers.registry import FURTHER, REGISTRY, build, table
from hjcontrol.layers.regulariser import BinaryEntropy, Shannon, Tsallis
from hjcontrol.layers.rows import RowSoftmax
from hjcontrol.layers.section import Separable
from hjcontrol.layers.sets import AffineSet, HalfSpace, L1BallProjection
from hjcontrol.layers.softmax import Softmax, maximum
from hjcontrol.layers.squares import CommutingSquare, commuting_square
from hjcontrol.layers.transport import Transport, birkhoff

__all__ = [
    "FURTHER",
    "GELU",
    "LOG",
    "LSE",
    "REGISTRY",
    "SQUARE",
    "AbstractConvexLayer",
    "AbstractFace",
    "AbstractProgram",
    "AffineSet",
    "Attended",
    "Attention",
    "BallProjection",
    "BinaryEntropy",
    "CappedSimplex",
    "ClassHead",
    "Clip",
    "CommutingSquare",
    "Cones",
    "ConicProgram",
    "Entmax",
    "Faces",
    "GradientTable",
    "GroupSoftThreshold",
    "HalfSpace",
    "Huber",
    "L1BallProjection",
    "LeakyReLU",
    "LogitHead",
    "Optimality",
    "Permutahedron",
    "Pool",
    "Potential",
    "ProgramLayer",
    "QuadraticProgram",
    "ReLU",
    "Residuals",
    "RowSoftmax",
    "Separable",
    "Shannon",
    "SiLU",
    "SoftThreshold",
    "Softmax",
    "Softplus",
    "Sparsemax",
    "Tanh",
    "Transport",
    "Tsallis",
    "argmax",
    "birkhoff",
    "build",
    "certify",
    "commuting_square",
    "compare_gradients",
    "faces",
    "isotonic",
    "key_norms",
    "legendre_as_cvxpy",
    "legendre_gap",
    "legendre_point",
    "legendre_program",
    "legendre_value",
    "maximum",
    "soft_rank",
    "soft_sort",
    "table",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {
        "L2Ball": ":BallProjection",
        "LogSumExp": "hjcontrol.deformation:LSE",
        "solve": ":argmax",
    }
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)
