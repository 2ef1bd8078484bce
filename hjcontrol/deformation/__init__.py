"""The eps-family: soft and hard maxima, Gibbs weights, entropy, for every `eps >= 0`."""

from hjcontrol.deformation.entropy import entropy, gibbs_entropy
from hjcontrol.deformation.eps_family import gibbs, lse, softmin

__all__ = ["entropy", "gibbs", "gibbs_entropy", "lse", "softmin"]
