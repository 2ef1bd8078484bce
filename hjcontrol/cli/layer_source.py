"""Where `pde` takes its layer from: arrays `W`, `b`, `eps` of an NPZ file, or a fit to diabetes data."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.terminal import Screen
from hjcontrol.control import ControlProblem, Ridge, least_squares
from hjcontrol.data import DataError, load
from hjcontrol.data.loading import npz_arrays
from hjcontrol.deformation import LSE
from hjcontrol.networks import AffineWeights
from hjcontrol.solvers import by_name, solve

EPS = 0.1
ATOMS, RIDGE, STEPS, TOL = 12, 1e-3, 5000, 1e-8
WINDOW = 3.0  # standard deviations of a feature


@dataclasses.dataclass
class Layer:
    """Weights of one LSE layer, where they come from, and what is known of their inputs."""

    W: np.ndarray
    b: np.ndarray
    eps: float
    name: str
    facts: dict[str, Any]
    names: tuple[str, ...] = ()
    window: float | None = None


def read_layer(name: str, eps: float | None) -> Layer:
    """The layer in the file `name`, at temperature `eps` if that is given.

    **Raises:** `CommandError` naming the file, the array and what is wrong with it.
    """
    try:
        arrays = npz_arrays(name)
    except DataError as error:
        raise CommandError(str(error)) from None
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


def _temperature(name: str, arrays: Mapping, asked: float | None) -> float:
    if asked is not None:
        return asked
    if "eps" not in arrays:
        return EPS
    eps = arrays["eps"]
    value = float(eps) if eps.shape == () and eps.dtype.kind in "iuf" else np.nan
    if not (np.isfinite(value) and value >= 0):
        raise CommandError(
            f"{name}: 'eps' must be a finite number >= 0; found {eps!r}. --eps overrides it."
        )
    return value


def fitted_layer(eps: float | None, screen: Screen) -> Layer:
    """A layer `lse(W x + b, eps)` fitted to the standardised diabetes data, all 442 samples, by L-BFGS.

    A control problem of one stage: `1/2 (f(x) - y)^2` averaged, and a small ridge. Not convex in `W`: it
    is a stationary point, from a fixed start.
    """
    eps = EPS if eps is None else eps
    data = load("diabetes", regression=True)
    X, y = data.features, data.targets
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()
    rng = np.random.default_rng(0)
    start = AffineWeights(jnp.asarray(0.3 * rng.normal(size=(ATOMS, X.shape[1]))), jnp.zeros(ATOMS))
    problem = ControlProblem(
        [(lambda x, w: LSE(w.W, w.b, eps)(x)[None], start)],
        jnp.asarray(X),
        jnp.asarray(y)[:, None],
        terminal=least_squares,
        running=Ridge(RIDGE),
    )
    with screen.progress("fit, diabetes") as progress:
        solution = solve(
            problem,
            by_name("gradient", tol=TOL),
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
