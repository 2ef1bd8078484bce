r"""`hjcontrol pde`: the initial-value problem that a layer's weights are, stated, checked and shown.

    y_j = 2t W_j,   g_j = -b_j - t |W_j|^2 - c     f + u = |x|^2/(4t)     u_t + |grad u|^2 = eps lap u

Residuals are taken by jets at drawn points, once for every normalisation of the sum: `heat` solves the
equation, `raw` and `mean` miss it by exactly -d eps/(2t). In one and two dimensions the grid witness,
which uses no sum over atoms, carries u(., t/2) on to t and is compared.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hjcontrol as hj
from hjcontrol._ground.record import Quantity, Record, figure
from hjcontrol.cli.command import REFUTED, SHOWN, Answer, Command, command_line
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.schema import folder, magnitude, option, string
from hjcontrol.cli.sources import EPS, Layer, fitted_layer, read_layer
from hjcontrol.cli.terminal import Screen

PROBES, SEED = 256, 0
ROUNDOFF = 1e-11  # relative residual that counts as solved
NORMALISATIONS = ("raw", "mean", "heat")
POINTS = {1: 401, 2: 97}  # of the grid witness, per axis


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `pde` is to do. `eps` is `None` where the file, or the default, decides."""

    weights: str | None = option(
        None,
        string,
        "arrays W (N, d) and b (N,), perhaps eps; left out: a layer fitted to the diabetes data",
        "WEIGHTS.npz",
        kind="argument",
    )
    time: float = option(
        1.0, magnitude(above=True), "the time t at which the layer is u", "T", shown="1"
    )
    eps: float | None = option(
        None, magnitude(above=False), "viscosity >= 0", "EPS", shown=f"the file's eps, or {EPS}"
    )
    window: float | None = option(
        None,
        magnitude(above=True),
        "half the side of what is shown",
        "R",
        shown="where the layer bends",
    )
    out: Path = folder("pde")


@dataclasses.dataclass
class Trial:
    """What came of it."""

    layer: Layer
    time: float
    data: Any
    window: float
    residuals: dict[str, dict[str, float]]
    identity: float
    grid: dict[str, Any] | None
    view: Any
    notes: list[str]

    @property
    def verdict(self) -> str:
        """`exact` if the heat-normalised sum solves the equation to roundoff and the dictionary holds."""
        solved = self.residuals["heat"]["relative"] <= ROUNDOFF and self.identity <= ROUNDOFF
        gauge = all(r["off_gauge"] <= ROUNDOFF for r in self.residuals.values())
        return "exact" if solved and gauge else "refuted"

    def record(self) -> Record:
        """The residuals, the problem, and its pictures."""
        import numpy as np

        from hjcontrol.reporting.field_page import field_record

        n, d = self.layer.W.shape
        y, g = np.asarray(self.data.atoms), np.asarray(self.data.values)
        rows = [
            {
                "normalisation": name,
                "largest residual": Quantity(r["largest"], 3),
                "smallest residual": Quantity(r["smallest"], 3),
                "expected": Quantity(r["expected"], 3),
                "relative": Quantity(r["relative"], 2),
            }
            for name, r in self.residuals.items()
        ]
        tables = {
            "Layer": {"atoms N": n, "dimension d": d, **self.layer.facts},
            "Problem": {
                "time t": self.time,
                "viscosity eps": self.layer.eps,
                "Hamiltonian": "|p|²",
                "g, least and greatest": [float(g.min()), float(g.max())],
                "atoms, farthest from 0": float(np.linalg.norm(y, axis=1).max()),
                "window": f"± {figure(self.window)}",
                "atoms that win somewhere in the window": self.view.winners,
                "f + u = |x|²/4t, largest relative error": self.identity,
            },
        }
        if self.grid is not None:
            tables["Grid witness, from t/2 to t"] = self.grid
        return field_record(
            self.view,
            rows=rows,
            tables=tables,
            residual=self.residuals["heat"]["relative"],
            notes=self.notes,
            title=f"The Hamilton-Jacobi problem of {self.layer.name}",
            verdict=self.verdict,
            command=command_line.get(),
        )

    def summary(self) -> dict[str, Any]:
        """The content of `result.json`."""
        return {
            "layer": {
                "name": self.layer.name,
                "num_atoms": self.layer.W.shape[0],
                "dimension": self.layer.W.shape[1],
                **self.layer.facts,
            },
            "time": self.time,
            "eps": self.layer.eps,
            "window": self.window,
            "residuals": self.residuals,
            "identity_error": self.identity,
            "grid": self.grid,
            "initial_data": {"atoms": self.data.atoms, "values": self.data.values},
            "notes": self.notes,
            "verdict": self.verdict,
        }


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Read or fit the layer, state its problem, take residuals, run the witness, sample the fields."""
    trial = perform(asked, screen)
    code = REFUTED if trial.verdict == "refuted" else SHOWN
    yield Answer(trial.summary(), trial.record, told=[f"verdict: {trial.verdict}"], code=code)


def perform(asked: Asked, screen: Screen) -> Trial:
    """The work of the command.

    **Raises:** `CommandError` for weights that are none.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    t, window = asked.time, asked.window
    layer = (
        fitted_layer(asked.eps, screen)
        if asked.weights is None
        else read_layer(asked.weights, asked.eps)
    )
    n, d = layer.W.shape
    screen.line(f"{layer.name}: {n} atoms in dimension {d}, t = {t:g}, eps = {layer.eps:g}")
    with np.errstate(over="ignore"):
        size = np.abs(layer.b) + (1 + t) * np.sum(layer.W**2, axis=1)
    if not np.isfinite(size).all():
        raise CommandError(
            f"{layer.name}: the initial data overflow at t = {t:g} (weights up to "
            f"{np.abs(layer.W).max():.3g}). Scale the weights, or choose another --time."
        )
    W, b = jnp.asarray(layer.W), jnp.asarray(layer.b)
    window = window or layer.window or _window(layer)
    data = hj.hamilton_jacobi.data_of_layer(W, b, t, eps=layer.eps, normalisation="heat")
    X = window * jax.random.uniform(jax.random.key(SEED), (PROBES, d), minval=-1.0, maxval=1.0)
    notes = [
        "The layer fixes neither t nor the Hamiltonian: both were chosen here, and every t > 0 gives "
        "initial data."
    ]
    if layer.eps == 0:
        notes.append(
            "eps = 0: no viscosity, so no gauge; the three sums are one, and residuals hold off the "
            "edges of the cells."
        )
    residuals = _residuals(data, X, t, layer.eps)
    grid = _witness(data, t, layer.eps, window, notes) if d <= 2 else None
    if d > 2:
        notes.append(
            f"d = {d}: pictures show the plane of the two directions in which the slopes W spread most; "
            "the grid witness has one or two dimensions."
        )
    return Trial(
        layer,
        t,
        data,
        window,
        residuals,
        _identity(data, W, b, X, t, layer.eps),
        grid,
        _view(data, layer, t, window),
        notes,
    )


def _window(layer: Layer) -> float:
    """Where the layer bends: thrice the median distance from 0 of planes on which two scores tie."""
    import numpy as np

    i, j = np.triu_indices(min(len(layer.b), 200), 1)
    apart = np.linalg.norm(layer.W[i] - layer.W[j], axis=1)
    far = np.abs(layer.b[i] - layer.b[j])[apart > 0] / apart[apart > 0]
    middle = float(np.median(far)) if len(far) else 0.0
    return 3 * middle if middle > 0 and np.isfinite(middle) else 1.0


def _by_jets(data, X, t, eps):
    import equinox as eqx
    import jax

    equation = hj.hamilton_jacobi

    @eqx.filter_jit
    def found(data, X, t, eps):
        def one(name):
            u = lambda x, t: equation.hopf_cole(data, x, t, eps, normalisation=name)
            return jax.vmap(lambda x: equation.pde_residual(u, x, t, eps))(X)

        return {name: one(name) for name in NORMALISATIONS}

    return found(data, X, t, eps)


def _residuals(data, X, t, eps) -> dict[str, dict[str, float]]:
    """Of every normalisation: residuals, what theory expects, and how far off that they are."""
    import jax.numpy as jnp
    import numpy as np

    content = {}
    by_name = _by_jets(data, X, t, jnp.asarray(eps))
    for name in NORMALISATIONS:
        found = by_name[name]
        r = np.asarray(found.residual)
        expected = 0.0 if name == "heat" or eps == 0 else -X.shape[1] * eps / (2 * t)
        size = np.abs(found.u_t) + np.abs(eps * found.laplacian) + np.abs(expected)
        off = np.abs(r - expected) / np.where(size > 0, size, 1.0)
        content[name] = {
            "largest": float(r[np.argmax(np.abs(r))]),
            "smallest": float(r[np.argmin(np.abs(r))]),
            "expected": expected,
            "relative": float(found.relative.max()),
            "off_gauge": float(off.max()),
        }
    return content


def _identity(data, W, b, X, t, eps) -> float:
    """Largest error of `f + u = |x|^2/(4t)`, relative to the terms; u is computed from (y, g) alone."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    @eqx.filter_jit
    def both_sides(data, W, b, X, t, eps):
        f = jax.vmap(hj.deformation.LSE(W, b, eps))(X)
        u = jax.vmap(lambda x: hj.hamilton_jacobi.hopf_cole(data, x, t, eps))(X)
        return f + u, jnp.sum(X * X, axis=1) / (4 * t), jnp.abs(f) + jnp.abs(u)

    total, square, size = (np.asarray(a) for a in both_sides(data, W, b, X, t, jnp.asarray(eps)))
    return float((np.abs(total - square) / np.maximum(size, 1e-300)).max())


def _witness(data, t, eps, window, notes) -> dict[str, Any] | None:
    """u(., t/2) from the atoms, carried to t by the grid; compared in the window.

    The grid reaches beyond every atom: there `p = (x - y)/(2t)` points outwards, so errors at
    the boundary do not travel in.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from hjcontrol.hamilton_jacobi.grid import Grid
    from hjcontrol.hamilton_jacobi.grid_solver import grid_solve

    d, hopf_cole = data.dimension, hj.hamilton_jacobi.hopf_cole
    reach = 1.1 * max(window, float(jnp.abs(data.atoms).max())) * np.ones(d)
    grid = Grid(-reach, reach, (POINTS[d],) * d, extrapolation=2)
    flat = grid.points.reshape(-1, d)
    u = eqx.filter_jit(lambda s: jax.vmap(lambda x: hopf_cole(data, x, s, jnp.asarray(eps)))(flat))
    try:
        g = u(jnp.asarray(t / 2)).reshape(grid.shape)
        solution = grid_solve(g, t / 2, lambda p: jnp.sum(p * p), eps, grid, max_steps=5000)
    except ValueError as error:
        notes.append(f"No grid witness: {error}")
        return None
    if not bool(solution.result == hj.RESULTS.successful):
        notes.append(f"The grid witness failed: {hj.RESULTS[solution.result]}")
        return None
    inside = np.abs(np.asarray(flat)).max(axis=1) <= window
    truth = np.asarray(u(jnp.asarray(t)))
    gap = np.abs(np.asarray(solution.u).ravel() - truth)[inside]
    return {
        "points": list(grid.shape),
        "spacing": float(grid.spacing[0]),
        "steps": solution.steps,
        "largest_difference": float(gap.max()),
        "mean_difference": float(gap.mean()),
        "range_of_u": float(np.ptp(truth[inside])),
    }


def _view(data: Any, layer: Layer, t: float, window: float) -> Any:
    """u, its gradient and the winning atom on a line or a plane through 0."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from hjcontrol.reporting.fields import View

    hopf_cole, gibbs = hj.hamilton_jacobi.hopf_cole, hj.deformation.gibbs
    W, b, d = jnp.asarray(layer.W), jnp.asarray(layer.b), layer.W.shape[1]
    plane = _plane(layer.W)
    side = np.linspace(-window, window, 401 if d == 1 else 121)
    mesh = np.stack(np.meshgrid(*[side] * plane.shape[0], indexing="ij"), axis=-1)
    X = jnp.asarray(mesh.reshape(-1, plane.shape[0]) @ plane)
    eps = jnp.asarray(layer.eps)

    @eqx.filter_jit
    def fields(X):
        one = jax.value_and_grad(lambda x: hopf_cole(data, x, t, eps))
        u, p = jax.vmap(one)(X)
        scores = X @ W.T + b[None, :]
        return (
            u,
            p,
            jnp.argmax(scores, axis=1),
            jnp.max(jax.vmap(lambda z: gibbs(z, eps))(scores), 1),
        )

    u, p, winner, share = (np.asarray(a) for a in fields(X))
    shape = mesh.shape[:-1]
    names = (
        layer.names if d <= 2 and len(layer.names) == d else tuple(f"x{i + 1}" for i in range(d))
    )
    return View(
        side=side,
        u=u.reshape(shape),
        gradient=(p @ plane.T).reshape(mesh.shape),
        winner=winner.reshape(shape),
        share=share.reshape(shape),
        atoms=np.asarray(data.atoms) if d <= 2 else None,
        values=np.asarray(data.values),
        axes=names if d <= 2 else ("first direction of W", "second direction of W"),
        t=t,
        eps=layer.eps,
    )


def _plane(W: Any) -> Any:
    """Orthonormal directions that are shown, as rows: all, or the two in which W spreads most."""
    import numpy as np

    d = W.shape[1]
    if d <= 2:
        return np.eye(d)
    rows = np.linalg.svd(W - W.mean(axis=0), full_matrices=True)[2][:2]
    return rows * np.sign(rows[[0, 1], np.abs(rows).argmax(axis=1)])[:, None]


PDE = Command(
    "pde",
    """State the Hamilton-Jacobi problem that an LSE layer solves, and measure whether it does.

    Writes report.html and result.json. Exit code 0: the residual is roundoff; 1: it is not.
    """,
    Asked,
    run,
    config="config",
)
