"""What a word on the command line names: a network or a function for `verify`, a layer for `pde`.

    a name        one of the registered architectures; else MODULE:OBJECT, which is
    a network     a `ControlProblem` (with its own ensemble), an architecture, an equinox module or a list
                  of stages from features to logits, or a function `(in_size, classes)` that returns one
    a function    `(fn, *args)`; a function of no arguments that returns `(fn, args)`; a function with a
                  default for every argument

A tuple whose items are all stages is a list of stages; a function whose first default is a whole number
takes sizes, and returns a network. A file is executed once per process, and an object is built once: what
is trained and what is tested have the same parts.

    FILE.npz      a layer's weights: arrays `W` (N, d) and `b` (N,), perhaps `eps`
"""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import hjcontrol as hj
from hjcontrol.cli.errors import CommandError, told_error
from hjcontrol.cli.schema import misspelt
from hjcontrol.cli.terminal import Screen

EPS = 0.1  # of a layer whose file says none
ATOMS, RIDGE, STEPS, TOL = 12, 1e-3, 5000, 1e-8  # of the layer that is fitted
WINDOW = 3.0  # standard deviations of a feature

Program = tuple[Callable, tuple[Any, ...]]


def checked_names(asked: list[str]) -> list[str]:
    """Refuse, before anything heavy is done, what is neither a name nor MODULE:OBJECT.

    **Raises:** `CommandError`.
    """
    known = hj.networks.ARCHITECTURES
    for name in asked:
        if name in known:
            continue
        if not _names_object(name):
            raise CommandError(
                f"TARGET: one of {', '.join(known)}, or MODULE:OBJECT of your own, is "
                f"needed; found {name!r}.{misspelt(name, known)}"
            )
    return asked


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
        try:
            built = self._network(features.shape[1], classes)
            if isinstance(built, hj.ControlProblem):
                return built
            if isinstance(built, hj.networks.AbstractArchitecture):
                parts = built.ensemble(features)
            else:
                stages = list(built) if isinstance(built, (list, tuple)) else [built]
                parts = {"stages": stages, "inputs": features}
            cost = hj.control.softmax_cross_entropy
            problem = hj.ControlProblem(**parts, targets=labels, terminal=cost)
        except (Exception, SystemExit) as error:  # the user's own exception is shown as it is
            if self.found is None:
                raise
            raise CommandError(f"{self.name}: {told_error(error)}") from error
        _check_logits(self.name, problem, classes)
        return problem

    def own_data(self) -> bool:
        """Whether the network came with an ensemble of its own."""
        return any(isinstance(built, hj.ControlProblem) for built in self._built.values())

    def _network(self, in_size: int, classes: int) -> Any:
        if (in_size, classes) not in self._built:
            built = self.found
            if built is None:
                built = hj.networks.architecture(self.name, in_size, classes)
            elif callable(built) and not _is_module(built):
                built = built(in_size, classes)
            self._built[in_size, classes] = built
        return self._built[in_size, classes]


def read_target(name: str) -> Target:
    """The target of that name, its file executed if it has one.

    **Raises:** `CommandError` for what cannot be loaded.
    """
    if name in hj.networks.ARCHITECTURES:
        return Target(name)
    found = _object(name)
    try:
        return Target(name, found, _program(name, found))
    except CommandError:
        raise
    except (Exception, SystemExit) as error:
        raise CommandError(f"{name}: {told_error(error)}") from error


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


def _names_object(name: str) -> bool:
    module, colon, attribute = name.rpartition(":")
    return bool(colon and module and attribute.isidentifier())


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
            f"{name}: {module} cannot be imported ({told_error(error)}). "
            "Call the command in the folder that holds it, or give FILE.py:OBJECT."
        ) from error
    finally:
        sys.path.remove("")
    if not hasattr(loaded, attribute):
        raise CommandError(
            f"{name}: {module} has no {attribute!r}.{misspelt(attribute, dir(loaded))}"
        )
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

    from hjcontrol._ground.shapes import of_drawn

    weights = of_drawn(problem.init)
    final = jax.eval_shape(problem.rollout, weights).final
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(final)]
    if shapes != [(classes,)]:
        raise CommandError(
            f"{name}: one logit a class is needed, shape ({classes},); the network "
            f"gives {', '.join(map(str, shapes))}. Let it end in a readout to {classes} numbers, or "
            "give a ControlProblem with a cost of its own."
        )


# ---------------------------------------------------------------------------------------- layers


@dataclasses.dataclass
class Layer:
    """Weights of one LSE layer, where they come from, and what is known of their inputs."""

    W: Any
    b: Any
    eps: float
    name: str
    facts: dict[str, Any]
    names: tuple[str, ...] = ()
    window: float | None = None


def read_layer(name: str, eps: float | None) -> Layer:
    """The layer in the file `name`, at temperature `eps` if that is given.

    **Raises:** `CommandError`, or `DataError`, naming the file, the array and what is wrong with it.
    """
    import numpy as np

    from hjcontrol.data.loading import npz_arrays

    arrays = npz_arrays(name)
    for key in ("W", "b"):
        if key not in arrays:
            raise CommandError(
                f"{name}: arrays 'W' (N, d) and 'b' (N,) are needed; the arrays are {arrays}."
            )
        if arrays[key].dtype.kind not in "iuf":
            raise CommandError(
                f"{name}: {key!r} must hold real numbers; found dtype {arrays[key].dtype}."
            )
    W, b = arrays["W"].astype(float), arrays["b"].astype(float)
    if W.ndim != 2 or b.shape != W.shape[:1] or W.size == 0:
        raise CommandError(
            f"{name}: W of shape (N, d) and b of shape (N,), N and d at least 1, are needed; found "
            f"{W.shape} and {b.shape}."
        )
    for key, a in (("W", W), ("b", b)):
        bad = int((~np.isfinite(a)).sum())
        if bad:
            raise CommandError(
                f"{name}: {key!r} must be finite; {bad} of {a.size} entries are not."
            )
    return Layer(W, b, _temperature(name, arrays, eps), Path(name).name, {"file": name})


class Head(NamedTuple):
    """A layer, or a classifier over one, and its name."""

    model: Any
    name: str


def read_head(name: str, eps: float | None) -> Head:
    """The layer in the file `name`, a classifier where it has an array `classes`; or the `LSE` or
    `ClassHead` that `MODULE:OBJECT` names. At temperature `eps` if that is given.

    **Raises:** `CommandError`.
    """
    import equinox as eqx
    import jax.numpy as jnp

    from hjcontrol.data.loading import npz_arrays

    if name.endswith(".npz"):
        layer, arrays = read_layer(name, eps), npz_arrays(name)
        model: Any = hj.layers.LSE(layer.W, layer.b, layer.eps)
        if "classes" in arrays:
            try:
                model = hj.layers.ClassHead(model, arrays["classes"])
            except ValueError as error:
                raise CommandError(f"{name}: {error}") from None
        return Head(model, layer.name)
    if not _names_object(name):
        raise CommandError(
            f"MODEL: FILE.npz, or MODULE:OBJECT of your own, is needed; found {name!r}."
        )
    found = _head(name, _object(name))
    layer = found.head if isinstance(found, hj.layers.ClassHead) else found
    if eps is not None:
        own = (lambda m: m.eps) if layer is found else (lambda m: m.head.eps)
        found = eqx.tree_at(own, found, jnp.asarray(eps, layer.b.dtype))
    return Head(found, name)


def _head(name: str, found: Any) -> Any:
    """An `LSE`, a `ClassHead` over one, or another library's model that is one affine layer."""
    from hjcontrol.networks.trained import affine_head_of, class_head_of

    layer = found.head if isinstance(found, hj.layers.ClassHead) else found
    if isinstance(layer, hj.layers.LSE):
        return found
    try:
        trained = hj.networks.from_model(found)
        affine = affine_head_of("explore", trained)
        return affine if trained.labels is None else class_head_of("explore", trained)
    except ValueError as error:
        raise CommandError(
            f"{name}: a page reads one affine layer: an LSE, a ClassHead over one, or a model that is "
            f"one. {error}"
        ) from None


def _temperature(name: str, arrays: Mapping, asked: float | None) -> float:
    if asked is not None:
        return asked
    if "eps" not in arrays:
        return EPS
    eps = arrays["eps"]
    value = float(eps) if eps.shape == () and eps.dtype.kind in "iuf" else math.nan
    if not (math.isfinite(value) and value >= 0):
        raise CommandError(
            f"{name}: 'eps' must be a finite number >= 0; found {eps!r}. --eps overrides it."
        )
    return value


def fitted_layer(eps: float | None, screen: Screen) -> Layer:
    """A layer `lse(W x + b, eps)` fitted to the standardised diabetes data, all 442 samples, by L-BFGS.

    A control problem of one stage: `1/2 (f(x) - y)^2` averaged, and a small ridge. Not convex in `W`: it
    is a stationary point, from a fixed start.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    eps = EPS if eps is None else eps
    data = hj.load("diabetes", regression=True)
    X, y = data.features, data.targets
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()
    rng = np.random.default_rng(0)
    slopes = jnp.asarray(0.3 * rng.normal(size=(ATOMS, X.shape[1])))
    start = hj.networks.AffineWeights(slopes, jnp.zeros(ATOMS))
    problem = hj.ControlProblem(
        [(lambda x, w: hj.deformation.LSE(w.W, w.b, eps)(x)[None], start)],
        jnp.asarray(X),
        jnp.asarray(y)[:, None],
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(RIDGE),
    )
    with screen.progress("fit, diabetes") as progress:
        solution = hj.solve(
            problem,
            hj.solvers.by_name("gradient", tol=TOL),
            init=problem.init(jax.random.key(0)),
            max_steps=STEPS,
            progress=progress,
        )
    (weights,) = problem.chain.unstack(solution.weights)
    predicted = np.asarray(jax.vmap(lambda x: problem.chain(solution.weights, x))(problem.inputs))
    facts = {
        "data": "diabetes, 442 samples, standardised",
        "fitted_by": "L-BFGS, a control problem of one stage",
        "objective": float(solution.objective),
        "stationarity": solution.stats["stationarity"],
        "r_squared": float(1 - np.mean((predicted[:, 0] - y) ** 2)),
    }
    return Layer(
        np.asarray(weights.W), np.asarray(weights.b), eps, "diabetes, fitted", facts,
        tuple(data.feature_names), WINDOW,
    )  # fmt: skip
