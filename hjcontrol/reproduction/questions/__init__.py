"""Questions that one paper asks of its own models: exponents, interpolation, solitons."""

from hjcontrol._ground.lazy import lazily

_ROOMS = ("double_descent", "scaling", "solitons")

__getattr__, __dir__ = lazily(__name__, {}, _ROOMS)
__all__ = __dir__()
