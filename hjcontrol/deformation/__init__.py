"""The eps-family: soft and hard maxima, Gibbs weights, entropy, for every `eps >= 0`."""

from hjcontrol.deformation.entropy import entropy, gibbs_entropy
from hjcontrol.deformation.eps_family import gibbs, heat, lse, softmin

__all__ = ["entropy", "gibbs", "gibbs_entropy", "heat", "lse", "softmin"]
