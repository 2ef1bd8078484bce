"""Neural ODEs seen at times: beside diffrax's own training loop, by Gauss-Newton, stiff, and latent.

tutorial   the spirals of diffrax's neural-ODE tutorial (x' = y / (1 + y), MLP of width 64, Tsit5 at
           rtol 1e-3, atol 1e-6, adabelief 3e-3): 32 series, their first tenth; the same loss at equal
           steps, seconds, and how far Gauss-Newton comes in the same seconds
adjoints   one gradient and one Hessian-vector product of the same loss by each adjoint
stiff      Robertson's rates from observations at times 1e-3 .. 1e4, by Kvaerno5 and Newton
latent     matplotlib's daily prices, gaps at weekends: five days encoded, the next twenty observed

python benchmarks/neural_ode.py [tutorial | adjoints | stiff | latent]
"""

import sys
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.cbook
import numpy as np
import optax
from harness import header, row, timed

import hjcontrol as hj
from hjcontrol.networks import ObservedFlow, Seen

STEPS = 200
HOW = {
    "solver": diffrax.Tsit5(),
    "stepsize_controller": diffrax.PIDController(rtol=1e-3, atol=1e-6),
    "max_steps": 64,  # "twice" and "direct" pay for every one of them
}


def spirals():
    ts = jnp.linspace(0, 10, 100)[:10]
    starts = jax.random.uniform(jax.random.key(5678), (32, 2), minval=-0.6, maxval=1.0)

    def rate(t, y, args):
        x = y / (1 + y)
        return jnp.stack([x[1], -x[0]])

    def one(start):
        saving = diffrax.SaveAt(ts=ts)
        term, solver = diffrax.ODETerm(rate), diffrax.Tsit5()
        return diffrax.diffeqsolve(term, solver, ts[0], ts[-1], 0.1, start, saveat=saving).ys

    mlp = eqx.nn.MLP(2, 2, 64, 2, jax.nn.softplus, key=jax.random.key(0))
    return ts, jax.jit(jax.vmap(one))(starts), mlp


def stated(ts, ys, mlp, adjoint="checkpoint"):
    flow = ObservedFlow(mlp, ts[-1], dt0=ts[1] - ts[0], adjoint=adjoint, **HOW)
    return hj.ControlProblem(
        [flow],
        ys[:, 0],
        ys,
        terminal=lambda states, y: jnp.mean((states - y) ** 2),
        context=Seen(jnp.broadcast_to(ts, ys.shape[:2])),
    )


def by_hand(ts, ys, mlp):
    """The tutorial's loop: its losses and seconds."""

    def solved(model, start):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: model(y)),
            diffrax.Tsit5(),
            ts[0],
            ts[-1],
            ts[1] - ts[0],
            start,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        ).ys

    @eqx.filter_value_and_grad
    def slope(model):
        return jnp.mean((jax.vmap(solved, (None, 0))(model, ys[:, 0]) - ys) ** 2)

    optimiser = optax.adabelief(3e-3)

    @eqx.filter_jit
    def step(model, state):
        loss, gradient = slope(model)
        change, state = optimiser.update(gradient, state)
        return loss, eqx.apply_updates(model, change), state

    def run():
        model, state, losses = mlp, optimiser.init(eqx.filter(mlp, eqx.is_inexact_array)), []
        for _ in range(STEPS):
            loss, model, state = step(model, state)
            losses.append(loss)
        return jax.block_until_ready(losses)

    run()
    seconds = []
    for _ in range(3):
        clock = time.perf_counter()
        losses = run()
        seconds.append(time.perf_counter() - clock)
    return np.asarray(losses), min(seconds)


def tutorial():
    ts, ys, mlp = spirals()
    losses, seconds = by_hand(ts, ys, mlp)
    problem = stated(ts, ys, mlp)
    method = hj.Gradient(optax.adabelief(3e-3), tol=0.0)
    ours = [hj.solve(problem, method, max_steps=STEPS) for _ in range(4)][1:]
    own = min(s.stats["solve_seconds"] for s in ours)
    apart = np.max(np.abs(ours[0].history.objective[:STEPS] - losses) / losses)
    row(case="adabelief", loss=float(ours[0].objective), seconds=own, by_hand=seconds)
    row(loss_apart_at_equal_steps=float(apart), times=own / seconds)
    counts = problem.chain[0].step_counts(
        problem.inputs, problem.chain.unstack(ours[0].weights)[0], problem.context
    )
    taken = np.asarray(counts["accepted"] + counts["rejected"])
    row(steps_least=int(taken.min()), median=int(np.median(taken)), most=int(taken.max()))
    twice = stated(ts, ys, mlp, "twice")
    for name in ("gauss_newton", "exact"):
        method = hj.Newton(curvature=name, switch=1.0)
        hj.solve(twice, method, max_steps=1)
        stop = lambda info: info.seconds > own
        found = hj.solve(twice, method, max_steps=500, callback=stop, every=1)
        row(
            case=f"Newton, {name}",
            loss=float(found.objective),
            seconds=found.stats["solve_seconds"],
            steps=found.stats["num_steps"],
        )


def adjoints():
    ts, ys, mlp = spirals()
    for adjoint in ("checkpoint", "twice", "direct"):
        problem = stated(ts, ys, mlp, adjoint)
        weights = problem.init(jax.random.key(0))
        slope = jax.jit(jax.grad(problem.objective))
        found = {"gradient": timed(lambda s=slope, w=weights: s(w))[0]}
        if adjoint != "checkpoint":
            product = jax.jit(lambda w, s=slope: jax.jvp(s, (w,), (w,))[1])
            found["product"] = timed(lambda p=product, w=weights: p(w))[0]
        size = float(hj.control.control_sets.largest(slope(weights)))
        row(adjoint=adjoint, largest=size, **found)


def stiff():
    truth = jnp.log(jnp.asarray([0.04, 3e7, 1e4]))

    def rate(y, logs):
        a, b, c = jnp.exp(logs)
        back = c * y[1] * y[2]
        return jnp.stack([-a * y[0] + back, a * y[0] - b * y[1] ** 2 - back, b * y[1] ** 2])

    flow = ObservedFlow(
        (rate, truth + jnp.asarray([0.3, -0.4, 0.2])),
        1e4,
        solver=diffrax.Kvaerno5(),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-9),
        adjoint="twice",
        dt0=1e-6,
        max_steps=1024,
    )
    draw = np.random.default_rng(0)
    times = np.sort(10 ** draw.uniform(-3, 4, (4, 12)), axis=1)
    seen = Seen(jnp.asarray(times))
    starts = jnp.asarray([[1.0, 0, 0], [0.8, 0, 0.2], [0.6, 0, 0.4], [0.9, 0, 0.1]])
    values = jax.jit(jax.vmap(lambda x, s: flow.step(x, truth, s)))(starts, seen)
    scale = jnp.asarray([1.0, 1e5, 1.0])
    problem = hj.ControlProblem(
        [flow],
        starts,
        values,
        terminal=lambda states, y: jnp.sum((scale * (states - y)) ** 2),
        context=seen,
    )
    solution = hj.solve(problem, hj.Newton(switch=1.0, tol=1e-7), max_steps=60)
    counts = flow.step_counts(starts, solution.weights[0][0], seen)
    taken = np.asarray(counts["accepted"] + counts["rejected"])
    row(
        case="Robertson",
        loss=float(solution.objective),
        rates_apart=float(jnp.max(jnp.abs(jnp.exp(solution.weights[0][0] - truth) - 1))),
        newton_steps=solution.stats["num_steps"],
        seconds=solution.stats["solve_seconds"],
        solver_steps=f"{taken.min()} to {taken.max()}",
    )


def latent():
    table = matplotlib.cbook.get_sample_data("goog.npz")["price_data"]
    days = (table["date"] - table["date"][0]).astype("timedelta64[D]").astype(float)
    prices = np.log(table["adj_close"].astype(float))
    known, ahead, width = 5, 20, 4
    starts = np.arange(0, len(days) - known - ahead, known)
    rows = starts[:, None] + np.arange(known + ahead)
    times = (days[rows] - days[rows][:, known - 1 : known]) / 30.0
    values = prices[rows] - prices[rows][:, known - 1 : known]
    encoded = np.concatenate([values[:, : known - 1], times[:, : known - 1]], axis=1)
    split = int(0.8 * len(starts))
    size = float(np.std(values[:split, known:]))
    end = float(times.max()) + 1e-6
    mlp = eqx.nn.MLP(width, width, 8, 1, jnp.tanh, key=jax.random.key(0))
    decode = (lambda states, w: states @ w, jnp.full((width, 1), 0.1))
    stages = [
        hj.networks.readout(encoded.shape[1], width),
        ObservedFlow(
            mlp,
            end,
            adjoint="twice",
            max_steps=256,
            dt0=0.05,
            **{
                "solver": diffrax.Tsit5(),
                "stepsize_controller": diffrax.PIDController(rtol=1e-4, atol=1e-6),
            },
        ),
        decode,
    ]

    def on(part):
        return hj.ControlProblem(
            stages,
            jnp.asarray(encoded[part] / size),
            jnp.asarray(values[part, known:, None] / size),
            terminal=lambda z, y: jnp.mean((z - y) ** 2),
            running=hj.Ridge(1e-3),
            context=Seen(jnp.asarray(times[part, known:])),
        )

    training, test = on(slice(0, split)), on(slice(split, None))
    start = training.init(jax.random.key(1))
    for method in (hj.Gradient(optax.adam(3e-3), tol=0.0), hj.Newton(curvature="gauss_newton")):
        solution = hj.solve(
            training, method, init=start, max_steps=300 if method.name == "gradient" else 60
        )
        final = jax.jit(lambda w: test.rollout(w).final)(solution.weights)
        error = float(jnp.mean((final - test.targets) ** 2))
        row(
            case=method.name,
            J=float(solution.objective),
            held_out=error,
            unchanged_price=float(jnp.mean(test.targets**2)),
            seconds=solution.stats["solve_seconds"],
            windows=len(starts),
        )


if __name__ == "__main__":
    header("neural ODEs, seen at times")
    cases = {"tutorial": tutorial, "adjoints": adjoints, "stiff": stiff, "latent": latent}
    for name in sys.argv[1:] or cases:
        cases[name]()
