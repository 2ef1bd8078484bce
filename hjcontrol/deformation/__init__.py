"""The eps-family: soft and hard maxima, Gibbs weights, entropy, for every `eps >= 0`."""

from hjcontrol.deformation.entropies import entropy, gibbs_entropy
from hjcontrol.deformation.eps_family import gibbs, heat, lse, softmin
from hjcontrol.deformation.soft_maximum import LSE
from hjcontrol.deformation.streaming import streaming_gibbs_mean, streaming_lse

__all__ = [
    "LSE",
    "entropy",
    "gibbs",
    "gibbs_entropy",
    "heat",
    "lse",
    "softmin",
    "streaming_gibbs_mean",
    "streaming_lse",
]
