"""Algorithms, siblings blind to each other, all driven by one loop."""

from hjcontrol._ground.lazy import lazily

_HOMES = {
    "solve": ".driver",
    "run": ".running",
    "Ended": ".running",
    "sweep": ".sweeping",
    "Sweep": ".sweeping",
    "Checkpoint": ".checkpoint",
    "by_name": ".names",
    "NAMES": ".names",
    "AbstractSolver": ".solver",
    "capabilities": ".selection",
    "capability_table": ".selection",
    "select": ".selection",
    "Gradient": ".gradient",
    "Newton": ".newton",
    "AugmentedLagrangian": ".augmented_lagrangian",
    "Riccati": ".riccati",
    "Direct": ".direct",
    "MSA": ".msa",
    "ExtendedMSA": ".msa",
    "DiscreteMSA": ".msa",
    "Shooting": ".shooting",
    "as_nlp": ".direct",
    "loadable_backends": ".direct",
}

_ROOMS = ("convex",)
_RENAMED = {"AbstractMethod": ":AbstractSolver", "loadable_plugins": ":loadable_backends"}

# Each solver brings its own third party
__getattr__, __dir__ = lazily(__name__, _HOMES, _ROOMS, _RENAMED)
__all__ = __dir__()
