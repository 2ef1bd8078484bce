"""One right call of every public callable: what the sweep of bad calls spoils, argument by argument.

    CALLS["deformation.lse"]() -> (function, {argument: right value})

What only the library makes (what a solve, a question or a claim hands back), what is abstract, and what
has no argument are named in `ELSEWHERE`. Everything public is in one of the two; a test says so.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj
from hjcontrol import analysis, control, layers, networks, reproduction
from hjcontrol import hamilton_jacobi as hjb
from hjcontrol._ground.results import RESULTS
from hjcontrol.control import hamiltonians
from hjcontrol.control.batches import check_batch_size
from hjcontrol.reproduction import questions as _questions

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
Y = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)))
U = jnp.asarray(np.random.default_rng(2).normal(size=6))
V = jnp.asarray(np.random.default_rng(3).normal(size=5))
POINT, OTHER = X[0], Y[1]
QUADRATIC = hjb.Quadratic()


def bowl(x):
    return jnp.sum(x**2)


def parabola(eps):
    return (eps - 0.2) ** 2 + np.arange(3.0)


def wave(x, t):
    return jnp.sum(x**2) / (1 + 4 * t)


@functools.cache
def data():
    rng = np.random.default_rng(0)
    from hjcontrol.data import DataSet

    names = ("a", "b", "c")
    return DataSet(rng.normal(size=(20, 3)), np.arange(20) % 2, ("0", "1"), names, "drawn")


@functools.cache
def real_data():
    from hjcontrol.data import DataSet

    rng = np.random.default_rng(0)
    return DataSet(rng.normal(size=(20, 3)), rng.normal(size=20), None, ("a", "b", "c"), "drawn")


@functools.cache
def problem():
    stages = [
        networks.Dense(2, 3),
        networks.Residual(networks.Dense(3, 3), 0.5),
        networks.readout(3, 2),
    ]
    return hj.ControlProblem(
        stages,
        X,
        jnp.arange(6) % 2,
        terminal=control.softmax_cross_entropy,
        running=control.Ridge(0.1),
    )


@functools.cache
def constrained():
    return hj.ControlProblem(
        [networks.Dense(2, 2)],
        X,
        X,
        terminal=control.least_squares,
        terminal_constraint=control.TerminalConstraint(lambda x, y: x - y),
    )


@functools.cache
def weights():
    return problem().init(KEY)


@functools.cache
def passes():
    return jax.jit(lambda w: control.backpropagate(problem(), w))(weights())


@functools.cache
def solution():
    value, states, costates, _ = passes()
    history = control.History(*np.ones((3, 1)))
    known = {
        "stationarity": 1.0,
        "solve_seconds": 1.0,
        "other_seconds": 0.5,
        "compile_seconds": 1.0,
        "num_steps": 0,
        "num_evals": 1,
        "objective": float(value),
    }
    return control.Solution(
        weights(), states, costates, value, RESULTS.successful, known, history, problem(), "newton"
    )


@functools.cache
def soft_layer():
    return layers.LSE(X, U, 0.5)


@functools.cache
def head():
    return layers.ClassHead(soft_layer(), (0, 0, 0, 1, 1, 1))


@functools.cache
def atoms():
    return hjb.InitialData(X, U)


@functools.cache
def max_affine():
    return hjb.MaxAffine(X, U)


@functools.cache
def program():
    import cvxpy

    z, x = cvxpy.Parameter(3), cvxpy.Variable(3)
    return cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - z)), [x >= 0])


@functools.cache
def grid():
    return hjb.Grid((-2.0,), (2.0,), (17,))


def finding():
    return reproduction.at_most("a", 1.0, 2.0)


def claim():
    return reproduction.CLAIMS[0]


def adam():
    import optax

    return optax.adam(1e-2)


def stage():
    return networks.Dense(2, 2)


def theta():
    return networks.AffineWeights(jnp.eye(2), jnp.zeros(2))


def _made(function, /, **arguments):
    """An entry whose arguments are made when they are asked for: functions of no argument are called."""
    return lambda: (
        function() if getattr(function, "__name__", "") == "<lambda>" else function,
        {k: a() if getattr(a, "__name__", "") == "<lambda>" else a for k, a in arguments.items()},
    )


def _crosschecked(problem, solution):
    return hj.crosscheck(problem, solution, solution)


@functools.cache
def imported(activation="tanh"):
    """A deep network as `from_model` gives it."""
    return networks.from_model(
        [(np.eye(3, 2), np.ones(3)), (np.ones((2, 3)), np.arange(2.0))], activation=activation
    )


def _analysis() -> dict:
    a, q = analysis, _questions
    lab = lambda: head()
    layer = lambda: soft_layer()
    return {
        "attribution.attribute": _made(lambda: a.attribution.attribute, model=lab, x=POINT),
        "attribution.costates": _made(
            lambda: a.attribution.costates,
            chain=lambda: problem().chain,
            weights=lambda: weights(),
            x=POINT,
            baseline=OTHER,
            output=bowl,
        ),
        "attribution.pruned": _made(lambda: a.attribution.pruned, layer=layer, atoms=(0, 1)),
        "attribution.without": _made(
            lambda: a.attribution.without,
            model=layer,
            x=POINT,
            removed=jnp.arange(6) == 0,
        ),
        "bifurcation.bifurcation_diagram": _made(
            lambda: a.bifurcation.bifurcation_diagram,
            layer=layer,
            eps=(0.5, 1.0),
            levels=1,
            most_boxes=400,
        ),
        "bifurcation.critical_points": _made(
            lambda: a.bifurcation.critical_points, layer=layer, most_boxes=4000
        ),
        "bifurcation.entropy_landscape": _made(
            lambda: a.bifurcation.entropy_landscape, layer=layer, x=POINT
        ),
        "bifurcation.hot_centre": _made(lambda: a.bifurcation.hot_centre, layer=layer),
        "bifurcation.on_plane": _made(
            lambda: a.bifurcation.on_plane, layer=layer, origin=POINT, directions=jnp.eye(2)
        ),
        "continual.overlap": _made(lambda: a.continual.overlap, model=layer, old=X, new=Y),
        "dimension.intrinsic_dimension": _made(
            lambda: a.dimension.intrinsic_dimension,
            X=lambda: np.asarray(jnp.tile(X, (10, 1)) + 0.01 * jax.random.normal(KEY, (60, 2))),
            estimators=("TwoNN",),
            key=KEY,
            halves=2,
        ),
        "dimension.sample_size": _made(
            lambda: a.dimension.sample_size,
            error=0.5,
            dimension=2.0,
            ambient=3,
            smoothness=2.0,
            constant=1.0,
            noise=0.1,
            eps=0.1,
        ),
        "questions.double_descent.minimum_norm": _made(
            lambda: q.double_descent.minimum_norm, eps=0.5, scale=1.0, ridge=0.1
        ),
        "questions.double_descent.of_function": _made(lambda: q.double_descent.of_function, f=bowl),
        "extrapolation.coverage_of_layer": _made(
            lambda: a.extrapolation.coverage_of_layer, layer=layer, t=1.0
        ),
        "extrapolation.coverage_of_samples": _made(
            lambda: a.extrapolation.coverage_of_samples, samples=X, width=0.5
        ),
        "extrapolation.gap": _made(lambda: a.extrapolation.gap, model=layer, x=POINT),
        "extrapolation.ray": _made(lambda: a.extrapolation.ray, layer=layer, x=POINT, v=OTHER),
        "robustness.attack": _made(
            lambda: a.robustness.attack,
            objective=bowl,
            x=POINT,
            radius=0.1,
            key=KEY,
            steps=2,
            starts=2,
        ),
        "robustness.certified_radius": _made(
            lambda: a.robustness.certified_radius, classifier=lab, x=POINT, label=0
        ),
        "robustness.attacked_radius": _made(
            lambda: a.robustness.attacked_radius,
            classifier=lab,
            x=POINT,
            label=0,
            key=KEY,
            steps=2,
            starts=2,
        ),
        "robustness.box_margin": _made(
            lambda: a.robustness.box_margin,
            model=lambda: imported("relu"),
            x=POINT,
            radius=0.1,
            label=0,
            seconds=5.0,
        ),
        "robustness.output_bounds": _made(
            lambda: a.robustness.output_bounds,
            model=lambda: imported(),
            x=POINT,
            radius=0.1,
            norm=2,
        ),
        "robustness.value_radius": _made(
            lambda: a.robustness.value_radius, model=lambda: imported(), x=POINT, within=0.1
        ),
        "robustness.change": _made(lambda: a.robustness.change, layer=layer, x=POINT, radius=0.1),
        "robustness.layer_curvature": _made(
            lambda: a.robustness.layer_curvature, model=layer, x=POINT
        ),
        "robustness.diameter": _made(lambda: a.robustness.diameter, W=X),
        "robustness.lipschitz": _made(lambda: a.robustness.lipschitz, layer=layer),
        "questions.scaling.effective_dimension": _made(
            lambda: q.scaling.effective_dimension, alpha=0.5, smoothness=2.0, loss_power=2.0
        ),
        "questions.scaling.scaling": _made(
            lambda: q.scaling.scaling,
            widths=lambda: np.array([2.0, 4.0, 8.0, 16.0]),
            epsilons=lambda: np.array([0.1, 0.2, 0.4, 0.8]),
            errors=lambda: np.exp(np.random.default_rng(0).normal(size=(4, 4, 3))),
            key=KEY,
            resamples=10,
            level=0.9,
        ),
        "questions.solitons.flows": _made(lambda: q.solitons.flows, layer=layer),
        "questions.solitons.kp": _made(lambda: q.solitons.kp, layer=layer, x=POINT),
        "temperature.by_bound": _made(
            lambda: a.temperature.by_bound, bounds=parabola, eps=lambda: np.array([0.1, 0.2, 0.4])
        ),
        "temperature.by_validation": _made(
            lambda: a.temperature.by_validation,
            losses=parabola,
            eps=lambda: np.array([0.1, 0.2, 0.4]),
        ),
        "temperature.crossover": _made(lambda: a.temperature.crossover, model=layer, points=X),
        "temperature.window": _made(
            lambda: a.temperature.window, atoms=10, dimension=2, side=1.0, t=1.0
        ),
        "tree.agreement": _made(lambda: a.tree.agreement, model=lab, X=X),
        "tree.distilled_tree": _made(
            lambda: a.tree.distilled_tree,
            model=lambda: imported(),
            X=X,
            max_leaves=3,
            held_out=Y,
        ),
        "tree.model_tree": _made(lambda: a.tree.model_tree, model=layer, max_leaves=100),
        "tree.piecewise_affine": _made(lambda: a.tree.piecewise_affine, model=layer),
        "tree.soft_tree": _made(lambda: a.tree.soft_tree, layer=layer),
    }


def _control() -> dict:
    c = control
    whole = {"problem": lambda: problem(), "weights": lambda: weights()}
    return {
        "Box": _made(c.Box, lower=-1.0, upper=1.0),
        "ByLeaf": _made(c.ByLeaf, sets={"W": c.L2Ball(1.0)}),
        "ByRun": _made(c.ByRun, sets=(c.Free(), c.Free())),
        "ControlProblem": _made(
            c.ControlProblem,
            stages=[networks.Dense(2, 2)],
            inputs=X,
            targets=X,
            terminal=control.least_squares,
            running=control.Ridge(0.1),
            control_set=c.Free(),
        ),
        "GroupBall": _made(c.GroupBall, radius=1.0),
        "L1Ball": _made(c.L1Ball, radius=1.0),
        "L2Ball": _made(c.L2Ball, radius=1.0),
        "Ridge": _made(c.Ridge, strength=0.1),
        "Simplex": _made(c.Simplex, radius=1.0),
        "Smoothing": _made(c.Smoothing, strength=0.1),
        "StateCost": _made(c.StateCost, function=wave),
        "Budget": _made(c.Budget, limit=1.0),
        "Guess": _made(c.Guess, weights=lambda: weights(), states=wave),
        "PathConstraint": _made(c.PathConstraint, function=bowl, kind="<="),
        "StateBall": _made(c.StateBall, radius=1.0),
        "StateBox": _made(c.StateBox, lower=-1.0, upper=1.0),
        "lagrangian": _made(c.lagrangian, problem=lambda: constrained(), nu=jnp.zeros((6, 2))),
        "TerminalConstraint": _made(c.TerminalConstraint, function=bowl, kind="="),
        "WeightCost": _made(c.WeightCost, function=bowl),
        "augmented": _made(
            c.augmented, problem=lambda: constrained(), nu=jnp.zeros((6, 2)), strength=1.0
        ),
        "backpropagate": _made(c.backpropagate, **whole),
        "costate": _made(c.costate, **whole),
        "curvature": _made(c.curvature, **whole),
        "gauss_newton_curvature": _made(c.gauss_newton_curvature, **whole),
        "check_batch_size": _made(check_batch_size, problem=lambda: problem(), size=2, who="a"),
        "given_at": _made(hamiltonians.given_at, problem=lambda: problem(), k=1),
        "hamiltonian": _made(
            c.hamiltonian,
            problem=lambda: problem(),
            k=0,
            x=X,
            p_next=jnp.ones((6, 3)),
            theta=lambda: jax.tree.map(lambda a: a[0], weights()[0]),
        ),
        "inner": _made(hamiltonians.inner, p=X, v=X),
        "least_squares": _made(c.least_squares, x=POINT, target=OTHER),
        "linear_quadratic": _made(
            c.linear_quadratic,
            A=jnp.eye(2)[None],
            B=jnp.eye(2)[None],
            inputs=X,
            targets=X,
            ridge=0.1,
        ),
        "minibatch": _made(c.minibatch, problem=lambda: problem(), size=2, key=KEY, who="a"),
        "rounded": _made(c.rounded, **whole, to=c.Binary()),
        "sample_hamiltonian": _made(
            c.sample_hamiltonian,
            problem=lambda: problem(),
            stage=networks.Dense(2, 3),
            x=POINT,
            p_next=jnp.ones(3),
            theta=lambda: jax.tree.map(lambda a: a[0], weights()[0]),
        ),
        "softmax_cross_entropy": _made(c.softmax_cross_entropy, logits=POINT, label=jnp.array(1)),
        "terminal_costate": _made(c.terminal_costate, problem=lambda: problem(), final=X),
        "value_and_gradient": _made(c.value_and_gradient, **whole),
        "ControlProblem.objective": _made(lambda: problem().objective, weights=lambda: weights()),
        "ControlProblem.rollout": _made(lambda: problem().rollout, weights=lambda: weights()),
        "ControlProblem.take": _made(lambda: problem().take, index=jnp.array([0, 2])),
        "ControlProblem.init": _made(lambda: problem().init, key=KEY),
    }


def _rest() -> dict:
    from hjcontrol import data as d
    from hjcontrol.comparison import symmetry
    from hjcontrol.data.loading import npz_arrays

    deform = hj.deformation
    eps = {"eps": 0.5, "axis": -1}
    stream = {"X": X, "W": Y, "b": V}
    return {
        "comparison.crosscheck": _made(
            lambda: _crosschecked, problem=lambda: problem(), solution=lambda: solution()
        ),
        "comparison.match": _made(
            symmetry.match,
            problem=lambda: problem(),
            a=lambda: passes()[1],
            b=lambda: passes()[1],
        ),
        "comparison.relabel": _made(
            symmetry.relabel,
            chain=lambda: problem().chain,
            weights=lambda: weights(),
            labellings=lambda: symmetry.match(problem(), passes()[1], passes()[1]),
        ),
        "data.load": _made(d.load, source="iris"),
        "data.load_real": _made(d.load, source="iris", regression=True),
        "data.npz_arrays": _made(npz_arrays, source="a.npz"),
        "data.split": _made(d.split, data=lambda: data(), train_size=0.5, key=KEY),
        "data.split_real": _made(d.split, data=lambda: real_data(), train_size=0.5, key=KEY),
        "data.subset": _made(d.subset, data=lambda: data(), count=7, key=KEY),
        "data.DataSet.take": _made(lambda: data().take, index=np.array([0, 3])),
        "deformation.entropy": _made(deform.entropy, p=jnp.array([0.25, 0.75]), axis=-1),
        "deformation.gibbs": _made(deform.gibbs, z=POINT, **eps),
        "deformation.gibbs_entropy": _made(deform.gibbs_entropy, z=POINT, **eps),
        "deformation.heat": _made(deform.heat, z=POINT, **eps),
        "deformation.LSE": _made(deform.LSE, W=X, b=U, eps=0.5),
        "deformation.lse": _made(deform.lse, z=POINT, **eps),
        "deformation.softmin": _made(deform.softmin, q=POINT, **eps),
        "deformation.streaming_lse": _made(deform.streaming_lse, **stream, eps=0.5, tile=(2, 2)),
        "deformation.streaming_gibbs_mean": _made(
            deform.streaming_gibbs_mean, **stream, V=Y, eps=0.5, tile=(2, 2)
        ),
        "reproduction.at_least": _made(
            reproduction.at_least, name="a", ours=2.0, bound=1.0, slack=0.1
        ),
        "reproduction.at_most": _made(
            reproduction.at_most, name="a", ours=1.0, bound=2.0, slack=0.1
        ),
        "reproduction.equal": _made(reproduction.equal, name="a", ours=1.0, expected=1.0, tol=0.1),
        "reproduction.zero": _made(reproduction.zero, name="a", residual=0.0, tol=0.1),
        "reproduction.by_id": _made(reproduction.by_id, name=lambda: claim().id),
        "reproduction.Evidence": _made(reproduction.Evidence, findings=lambda: (finding(),)),
        "reporting.report": _made(
            hj.report, path="never.html", solutions=lambda: solution(), title="a"
        ),
    }


def calls() -> dict:
    """Every public callable by room and name, with one right call."""
    from tests.faults.good_calls_theory import THEORY

    room = lambda name: "reproduction" if name.startswith("questions.") else "analysis"
    own = {f"{room(k)}.{k}": v for k, v in _analysis().items()}
    own |= {f"control.{k}": v for k, v in _control().items()} | _rest()
    return own | THEORY
