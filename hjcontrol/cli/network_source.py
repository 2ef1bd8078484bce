"""Networks for `hjcontrol verify`: a registered architecture by name, or the user's own, MODULE:OBJECT.

The object may be a `ControlProblem` (with its own ensemble), an architecture, an equinox module or a list
of stages from features to logits, or a function `(in_size, classes)` that returns one of these.
"""

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from hjcontrol.cli.errors import CommandError


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
                f"--architecture: one of {', '.join(ARCHITECTURES)}, or MODULE:OBJECT of your own, is "
                f"needed; found {name!r}.{hint}"
            )
    return list(dict.fromkeys(asked))


def stated(name: str, features: Any, labels: Any, classes: int) -> Any:
    """The control problem of that network on the given ensemble.

    **Raises:** `CommandError` for a network that cannot be loaded, or that does not fit the data.
    """
    from hjcontrol.control import ControlProblem, softmax_cross_entropy
    from hjcontrol.networks import ARCHITECTURES, AbstractArchitecture, architecture

    own = name not in ARCHITECTURES
    try:
        built = _object(name) if own else architecture(name, features.shape[1], classes)
        if own and callable(built) and not _is_network(built):
            built = built(features.shape[1], classes)
        if isinstance(built, ControlProblem):
            return built
        if isinstance(built, AbstractArchitecture):
            parts = built.ensemble(features)
        else:
            stages = list(built) if isinstance(built, (list, tuple)) else [built]
            parts = {"stages": stages, "inputs": features}
        problem = ControlProblem(**parts, targets=labels, terminal=softmax_cross_entropy)
    except CommandError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # the user's own code: what it raises is theirs to read
        if not own:
            raise
        raise CommandError(f"--architecture {name}: {type(error).__name__}: {error}") from error
    _check_logits(name, problem, classes)
    return problem


def _is_network(built: Any) -> bool:
    import equinox as eqx

    return isinstance(built, eqx.Module)


def _object(name: str) -> Any:
    module, _, attribute = name.rpartition(":")
    sys.path.insert(0, "")  # as `python -m` does: the folder the command was called in
    try:
        loaded = _file(module) if module.endswith(".py") else importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise CommandError(
            f"--architecture {name}: {module} cannot be imported ({type(error).__name__}: {error}). "
            "Call the command in the folder that holds it, or give FILE.py:OBJECT."
        ) from error
    finally:
        sys.path.remove("")
    if not hasattr(loaded, attribute):
        close = difflib.get_close_matches(attribute, dir(loaded), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise CommandError(f"--architecture {name}: {module} has no {attribute!r}.{hint}")
    return getattr(loaded, attribute)


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
            f"--architecture {name}: one logit a class is needed, shape ({classes},); the network "
            f"gives {', '.join(map(str, shapes))}. Let it end in a readout to {classes} numbers, or "
            "give a ControlProblem with a cost of its own."
        )
