"""Composition: depth is time. Stages, chains of them, the layers to build them from, architectures."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.networks.architectures import ARCHITECTURES, AbstractArchitecture, architecture
from hjcontrol.networks.attention import AttentionWeights, SelfAttention
from hjcontrol.networks.chain import Chain, Run, Tied, Weights
from hjcontrol.networks.dense import AffineWeights, Dense, depth_bound, lift, readout, soft_maximum
from hjcontrol.networks.encoder import SentenceEncoder, sentence_encoder
from hjcontrol.networks.flow import Flow
from hjcontrol.networks.free_step import FreeStep, StepWeights, without_idle_stages
from hjcontrol.networks.head_tables import HeadTable, head_table
from hjcontrol.networks.horizon import free_horizon
from hjcontrol.networks.importing import from_model
from hjcontrol.networks.linear import Driven
from hjcontrol.networks.log_semiring import LogSemiring
from hjcontrol.networks.observed_flow import Moment, ObservedFlow, Seen
from hjcontrol.networks.recurrent import GRU, LSTM, RNN, Output, RecurrentWeights
from hjcontrol.networks.residual import Residual
from hjcontrol.networks.stage import (
    AbstractStage,
    FunctionStage,
    ModuleStage,
    Symmetry,
    advance,
    as_stage,
)
from hjcontrol.networks.state_space import DiagonalSSM, ModeWeights, StateSpace, StateSpaceWeights
from hjcontrol.networks.stochastic import StochasticResidual, brownian, scatter, soft_mean
from hjcontrol.networks.trained import Trained
from hjcontrol.networks.transformer import (
    Block,
    BlockWeights,
    Embed,
    EmbedWeights,
    FeedForward,
    FeedForwardWeights,
    LayerNorm,
    MeanPool,
    NormWeights,
)
from hjcontrol.networks.units import (
    AbstractUnits,
    LSEUnits,
    Pointwise,
    SoftplusUnits,
    gelu,
    identity,
)

__all__ = [
    "ARCHITECTURES",
    "GRU",
    "LSTM",
    "RNN",
    "AbstractArchitecture",
    "AbstractStage",
    "AbstractUnits",
    "AffineWeights",
    "AttentionWeights",
    "Block",
    "BlockWeights",
    "Chain",
    "Dense",
    "DiagonalSSM",
    "Driven",
    "Embed",
    "EmbedWeights",
    "FeedForward",
    "FeedForwardWeights",
    "Flow",
    "FreeStep",
    "FunctionStage",
    "HeadTable",
    "LSEUnits",
    "LayerNorm",
    "LogSemiring",
    "MeanPool",
    "ModeWeights",
    "ModuleStage",
    "Moment",
    "NormWeights",
    "ObservedFlow",
    "Output",
    "Pointwise",
    "RecurrentWeights",
    "Residual",
    "Run",
    "Seen",
    "SelfAttention",
    "SentenceEncoder",
    "SoftplusUnits",
    "StateSpace",
    "StateSpaceWeights",
    "StepWeights",
    "StochasticResidual",
    "Symmetry",
    "Tied",
    "Trained",
    "Weights",
    "advance",
    "architecture",
    "as_stage",
    "brownian",
    "depth_bound",
    "free_horizon",
    "from_model",
    "gelu",
    "head_table",
    "identity",
    "lift",
    "readout",
    "scatter",
    "sentence_encoder",
    "soft_maximum",
    "soft_mean",
    "without_idle_stages",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {
        "Hidden": ":Dense",
        "LogSumExp": ":LSEUnits",
        "Softplus": ":SoftplusUnits",
        "check_given": ".grouping:check_given",
    }
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)
