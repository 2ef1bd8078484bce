"""What `hjcontrol verify` verifies: a registered architecture by name, or the user's own, MODULE:OBJECT.

    a network     a `ControlProblem` (with its own ensemble), an architecture, an equinox module or a list
                  of stages from features to logits, or a function `(in_size, classes)` that returns one
    a function    `(fn, *args)`; a function of no arguments that returns `(fn, args)`; a function with a
                  default for every argument

A tuple whose items are all stages is a list of stages; a function whose first default is a whole number
takes sizes, and returns a network. A file is executed once a process, and an object is built once: what
is trained and what is tested have the same parts.
"""

import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hjcontrol.cli.errors import CommandError

Program = tuple[Callable, tuple[Any, ...]]


def checked_names(asked: list[str]) -> list[str]:
    """Refuse, before anything heavy is done, what is neither a name nor MODULE:OBJECT.

    **Raises:** `CommandError`.
    """
    from hjcontrol.networks import ARCHITECTURES

    for name in asked:
        if name in ARCHITECTURES:
            continue
        module, colon, attribute = name.rpartition(":")
        if not (colon and module and attribute.isidentifier()):
            close = difflib.get_close_matches(name, ARCHITECTURES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise CommandError(
                f"TARGET: one of {', '.join(ARCHITECTURES)}, or MODULE:OBJECT of your own, is "
                f"needed; found {name!r}.{hint}"
            )
    return list(dict.fromkeys(asked))


@dataclasses.dataclass
class Target:
    """A network, to be stated on data, or a `program`: a function with its own arguments."""

    name: str
    found: Any = None  # the user's object; of a registered architecture `None`
    program: Program | None = None
    _built: dict[tuple[int, int], Any] = dataclasses.field(default_factory=dict)

    def problem(self, features: Any, labels: Any, classes: int) -> Any:
        """The control problem of the network on the given ensemble.

        **Raises:** `CommandError` for a network that does not fit the data.
        """
        from hjcontrol.control import ControlProblem, softmax_cross_entropy
        from hjcontrol.networks import AbstractArchitecture

        try:
            built = self._network(features.shape[1], classes)
            if isinstance(built, ControlProblem):
                return built
            if isinstance(built, AbstractArchitecture):
                parts = built.ensemble(features)
            else:
                stages = list(built) if isinstance(built, (list, tuple)) else [built]
                parts = {"stages": stages, "inputs": features}
            problem = ControlProblem(**parts, targets=labels, terminal=softmax_cross_entropy)
        except (Exception, SystemExit) as error:  # the user's own code: what it raises is theirs
            if self.found is None:
                raise
            raise CommandError(f"{self.name}: {type(error).__name__}: {error}") from error
        _check_logits(self.name, problem, classes)
        return problem

    def own_data(self) -> bool:
        """Whether the network came with an ensemble of its own."""
        from hjcontrol.control import ControlProblem

        return any(isinstance(built, ControlProblem) for built in self._built.values())

    def _network(self, in_size: int, classes: int) -> Any:
        from hjcontrol.networks import architecture

        if (in_size, classes) not in self._built:
            built = self.found
            if built is None:
                built = architecture(self.name, in_size, classes)
            elif callable(built) and not _is_module(built):
                built = built(in_size, classes)
            self._built[in_size, classes] = built
        return self._built[in_size, classes]


def read_target(name: str) -> Target:
    """The target of that name, its file executed if it has one.

    **Raises:** `CommandError` for what cannot be loaded.
    """
    from hjcontrol.networks import ARCHITECTURES

    if name in ARCHITECTURES:
        return Target(name)
    found = _object(name)
    try:
        return Target(name, found, _program(name, found))
    except CommandError:
        raise
    except (Exception, SystemExit) as error:
        raise CommandError(f"{name}: {type(error).__name__}: {error}") from error


def _program(name: str, found: Any) -> Program | None:
    """The function and its arguments; `None` if the object states a network."""
    if isinstance(found, tuple) and found and callable(found[0]):
        return None if all(map(_is_stage, found)) else (found[0], tuple(found[1:]))
    if not callable(found) or inspect.isclass(found) or _is_module(found):
        return None
    parameters = inspect.signature(found).parameters.values()
    if any(p.default is p.empty for p in parameters):  # those of `*args` are empty too
        return None
    defaults = tuple(p.default for p in parameters if p.kind is not p.KEYWORD_ONLY)
    if defaults:
        return None if isinstance(defaults[0], int) else (found, defaults)
    given = found()
    if not (isinstance(given, tuple) and len(given) > 1 and callable(given[0])):
        raise CommandError(
            f"{name}: a function of no arguments returns (fn, args), args a tuple; it returned "
            f"{type(given).__name__}."
        )
    fn, *args = given
    return fn, args[0] if len(args) == 1 and type(args[0]) is tuple else tuple(args)


def _is_stage(item: Any) -> bool:
    pair = isinstance(item, tuple) and len(item) == 2 and callable(item[0])
    return pair or callable(item)


def _is_module(built: Any) -> bool:
    import equinox as eqx

    return isinstance(built, eqx.Module) and not hasattr(built, "__wrapped__")


def _object(name: str) -> Any:
    module, _, attribute = name.rpartition(":")
    sys.path.insert(0, "")  # as `python -m` does: the folder the command was called in
    try:
        own = module.endswith(".py")
        loaded = _file(str(Path(module).resolve())) if own else importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise CommandError(
            f"{name}: {module} cannot be imported ({type(error).__name__}: {error}). "
            "Call the command in the folder that holds it, or give FILE.py:OBJECT."
        ) from error
    finally:
        sys.path.remove("")
    if not hasattr(loaded, attribute):
        close = difflib.get_close_matches(attribute, dir(loaded), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise CommandError(f"{name}: {module} has no {attribute!r}.{hint}")
    return getattr(loaded, attribute)


@functools.cache  # once a process: what is loaded twice has two classes of one name
def _file(path: str) -> Any:
    # Under a name of its own: a file called numpy.py replaces no module.
    own = f"_hjcontrol_file_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(own, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _check_logits(name: str, problem: Any, classes: int) -> None:
    import jax

    weights = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
    final = jax.eval_shape(problem.rollout, weights).final
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(final)]
    if shapes != [(classes,)]:
        raise CommandError(
            f"{name}: one logit a class is needed, shape ({classes},); the network "
            f"gives {', '.join(map(str, shapes))}. Let it end in a readout to {classes} numbers, or "
            "give a ControlProblem with a cost of its own."
        )
