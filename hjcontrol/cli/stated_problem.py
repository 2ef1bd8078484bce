"""The problem, and the method, that a PROBLEM.toml asks for: its names resolved in the library.

    [control-set] kind = "l2-ball", radius = 1     ->  hjcontrol.control.L2Ball(radius=1)
    [costs] ridge = 1e-3                           ->  hjcontrol.control.Ridge(1e-3)

A control set or running cost that the library learns can be named here at once.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hjcontrol import control, networks
from hjcontrol.cli.errors import CommandError, refusals
from hjcontrol.cli.schema import misspelt
from hjcontrol.control import ControlProblem, least_squares, softmax_cross_entropy
from hjcontrol.data import DataSet
from hjcontrol.solvers import by_name

WIDTH, DEPTH, STEP, ACTIVATION, RIDGE = 16, 8, 0.25, "tanh", 1e-3
_OWN = ("Free", "StateCost", "WeightCost")  # these take a function, or nothing, and no number
_SOLVERS_OWN = ("optimiser", "label", "report", "max_steps", "curvature")


def stated(asked: Any, data: DataSet) -> ControlProblem:
    """The control problem on a data set.

    **Raises:** `CommandError` for a name or number that the library refuses.
    """
    features, labels = jnp.asarray(data.features), jnp.asarray(data.targets)
    outputs = _outputs(data)
    if data.classes is None:
        terminal, targets = least_squares, labels[:, None]
    elif asked.costs.get("terminal") == "least-squares":
        terminal, targets = least_squares, jax.nn.one_hot(labels, outputs, dtype=features.dtype)
    else:
        terminal, targets = softmax_cross_entropy, labels
    with refusals(f"{asked.problem}: network"):
        parts = _network(asked, features, outputs)
    running, bounds = _running(asked), _control_set(asked)
    with refusals(asked.problem):
        return ControlProblem(
            **parts, targets=targets, terminal=terminal, running=running, control_set=bounds
        )


def entered(asked: Any, data: DataSet) -> dict[str, Any]:
    """What the stated network reads of a data set: `inputs`, with `forcing` and `context` if any."""
    parts = _network(asked, jnp.asarray(data.features), _outputs(data))
    return {name: value for name, value in parts.items() if name != "stages"}


def _outputs(data: DataSet) -> int:
    return 1 if data.classes is None else len(data.classes)


def method(asked: Any) -> Any:
    """The solver with its options.

    **Raises:** `CommandError` for an option that it does not have, or a value that it refuses.
    """
    where = f"{asked.problem}: options.{asked.solver}"
    options = {k.replace("-", "_"): v for k, v in asked.options.get(asked.solver, {}).items()}
    known = fields_of(type(by_name(asked.solver)), _SOLVERS_OWN)
    _check_names(where, options, known)
    with refusals(where):
        return by_name(asked.solver, **options)


def _network(asked: Any, features: jax.Array, outputs: int) -> dict[str, Any]:
    table = dict(asked.network)
    name = table.pop("architecture", None)
    if name is not None:
        if name not in networks.ARCHITECTURES:
            raise CommandError(
                f"{asked.problem}: network.architecture: unknown {name!r}; there are "
                f"{', '.join(networks.ARCHITECTURES)}.{misspelt(name, networks.ARCHITECTURES)}"
            )
        kind = networks.ARCHITECTURES[name]
        table = {k: _activation(v) if k == "activation" else v for k, v in table.items()}
        _check_names(f"{asked.problem}: network", table, fields_of(kind, ("in_size", "classes")))
        return networks.architecture(name, features.shape[1], outputs, **table).ensemble(features)
    width, depth = table.get("width", WIDTH), table.get("depth", DEPTH)
    dense = networks.Dense(width, width, _activation(table.get("activation", ACTIVATION)))
    residual = networks.Residual(dense, table.get("step", STEP))
    lift, readout = networks.lift(features.shape[1], width), networks.readout(width, outputs)
    return {"stages": [lift, *[residual] * depth, readout], "inputs": features}


def _activation(name: str) -> Any:
    return getattr(jnp, name) if hasattr(jnp, name) else getattr(jax.nn, name)


def _running(asked: Any) -> list[Any]:
    costs = kinds(control.AbstractRunningCost)
    table = {"ridge": RIDGE} | {k: v for k, v in asked.costs.items() if k != "terminal"}
    return [_made(f"{asked.problem}: costs", costs, name, value) for name, value in table.items()]


def _control_set(asked: Any) -> Any:
    if not asked.control_set:
        return None
    table = dict(asked.control_set)
    if "kind" not in table:
        raise CommandError(f'{asked.problem}: control-set: `kind` is needed, as kind = "box".')
    kind = table.pop("kind")
    sets = kinds(control.AbstractControlSet)
    return _made(f"{asked.problem}: control-set", sets, kind, table)


def kinds(family: type) -> dict[str, type]:
    """The library's final classes of a family, by their names in small letters."""
    named = [(name, getattr(control, name)) for name in control.__all__]
    return {
        _plain(name): kind
        for name, kind in named
        if isinstance(kind, type) and issubclass(kind, family) and kind is not family
        if name not in _OWN
    }


def _made(where: str, known: dict[str, type], name: str, value: Any) -> Any:
    if _plain(name) not in known:
        raise CommandError(
            f"{where}: unknown {name!r}; there are {', '.join(known)}.{misspelt(_plain(name), known)}"
        )
    kind = known[_plain(name)]
    where = f"{where}: {name}"
    with refusals(where):
        if not isinstance(value, dict):
            return kind(value)
        table = {k.replace("-", "_"): v for k, v in value.items()}
        _check_names(where, table, fields_of(kind))
        return kind(**table)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def fields_of(kind: type, without: tuple[str, ...] = ()) -> list[str]:
    """What a class of the library takes, by name."""
    return [f.name for f in dataclasses.fields(kind) if f.init and f.name not in without]


def _check_names(where: str, given: Mapping[str, Any], known: list[str]) -> None:
    for name in given:
        if name not in known:
            spelt = [k.replace("_", "-") for k in known]
            raise CommandError(
                f"{where}: unknown key {name.replace('_', '-')!r}; the keys are "
                f"{', '.join(spelt) or 'none'}.{misspelt(name.replace('_', '-'), spelt)}"
            )
