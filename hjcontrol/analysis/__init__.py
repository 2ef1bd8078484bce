"""Questions to a model, one file each, blind to each other. See the room's page for what each answers."""

from hjcontrol._ground.lazy import lazily

_ROOMS = (
    "attribution",
    "bifurcation",
    "continual",
    "dimension",
    "extrapolation",
    "robustness",
    "temperature",
    "tree",
)

_MOVED = ("double_descent", "scaling", "solitons")  # the paper's own questions

_RENAMED = {name: f"hjcontrol.reproduction.questions.{name}" for name in _MOVED}

__getattr__, __dir__ = lazily(__name__, {}, _ROOMS, _RENAMED)
__all__ = __dir__()
