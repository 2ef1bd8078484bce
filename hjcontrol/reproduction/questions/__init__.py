"""Questions that one paper asks of its own models: exponents, interpolation, solitons."""

from hjcontrol._ground.lazy import lazily

_QUESTIONS = ("double_descent", "scaling", "solitons")

__all__ = sorted(_QUESTIONS)
__getattr__, __dir__ = lazily(__name__, {}, _QUESTIONS)
