"""Twenty-five published control problems: the printed value, ours, and CasADi's by hand.

Each problem is stated once, as formulas of `m`, which is `jax.numpy` for hjcontrol and `casadi` for the
program by hand: multiple shooting with Runge-Kutta steps, written without hjcontrol, solved by IPOPT.
The running cost is one more state, and a free final time another, set by the first stage. The two must
give the same number; the published one differs by what the mesh costs.

Sources: Bryson and Ho, Applied Optimal Control (boat too); Bryson (orbit); Augustin and Maurer (crane);
Logsdon and Biegler (temperature); the PROPT manual (Rayleigh); mintOC (fishing, Egerstedt); COPS 3.0
(Goddard, robot arm, chain, catalyst); Kelly, SIAM Review 2017 (cart-pole); Dymos's examples
(brachistochrone). Moon lander and batch reactor as commonly quoted; values without a source, bounded
Rayleigh and Van der Pol above all, are Radau collocation of degree 3 on 150 elements in CasADi.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj
from hjcontrol.control import Box, ByLeaf, Guess, PathConstraint, StateBox, TerminalConstraint
from tests.oracles import published_drifts as drifts

INF = float("inf")


class Free(NamedTuple):
    """A final time that is free: where a solver starts, and between what it stays."""

    guess: float
    lower: float
    upper: float


class Published(NamedTuple):
    """A problem as its source states it."""

    name: str
    value: float
    rate: Callable[..., Sequence[Any]]  # x' = rate(m, x, u)
    start: Sequence[float]
    end: Mapping[int, float] = {}
    time: float | Free = 1.0
    running: Callable[..., Any] = lambda m, x, u: 0.0
    terminal: Callable[..., Any] = lambda m, x, time: 0.0
    lower: Sequence[float] = (-INF,)
    upper: Sequence[float] = (INF,)
    box: Mapping[int, tuple[float, float]] = {}
    mixed: Callable[..., Any] | None = None  # mixed(m, x, u) <= 0, or == 0
    kind: str = "<="
    ending: Callable[..., Any] | None = None  # ending(m, x) == 0 beside the given ends
    controls: Sequence[float] = (0.0,)  # where the solver starts
    guess: Callable[[float], Sequence[float]] | None = None  # states at a share of the time
    stages: int = 50
    mesh: float = 2e-3  # what steps of this length cost, relative


def span(p: Published) -> float:
    return p.time.guess if isinstance(p.time, Free) else p.time


def step(m, p: Published, x, u):
    """One Runge-Kutta step of [x, running cost, final time], as a list."""
    d = len(p.start)
    h = x[d + 1] / p.stages
    f = lambda z: [*p.rate(m, z, u), p.running(m, z, u)]
    go = lambda k, part: [x[i] + part * h * k[i] for i in range(d)]
    k1 = f([x[i] for i in range(d)])
    k2 = f(go(k1, 0.5))
    k3 = f(go(k2, 0.5))
    k4 = f(go(k3, 1.0))
    moved = [x[i] + h / 6 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]) for i in range(d + 1)]
    return [*moved, x[d + 1]]


def guessed(p: Published, s: float) -> list[float]:
    """States where the solver starts: the source's, or a straight line to the given ends."""
    line = [a + s * (p.end.get(i, a) - a) for i, a in enumerate(p.start)]
    return [*(p.guess(s) if p.guess else line), 0.0, span(p)]


def stated(p: Published) -> tuple[hj.ControlProblem, Guess]:
    """The problem as hjcontrol takes it, and where to start."""
    d, free = len(p.start), isinstance(p.time, Free)
    ends = jnp.array([*p.end.values(), *([] if p.ending is None else [0.0])])

    def first(x, w):
        begun = [*(x[i] for i in range(d + 1)), w["time"]]
        return jnp.stack(step(jnp, p, begun, w["u"]))

    def further(x, w):
        return jnp.stack(step(jnp, p, x, w["u"]))

    u = jnp.array(p.controls)
    begin = (first, {"time": jnp.array(span(p)), "u": u}) if free else (further, {"u": u})
    sets: dict[str, Any] = {"u": Box(jnp.array(p.lower), jnp.array(p.upper))}
    if free:
        sets["time"] = Box(p.time.lower, p.time.upper)
    path: list[Any] = []
    if p.box:
        low, high = ([p.box.get(i, (-INF, INF))[side] for i in range(d + 2)] for side in (0, 1))
        path.append(StateBox(jnp.array(low), jnp.array(high)))
    if p.mixed is not None:
        path.append(PathConstraint(lambda x, w: p.mixed(jnp, x, w["u"]), kind=p.kind))
    more = lambda x: [] if p.ending is None else [p.ending(jnp, x)]
    at_end = TerminalConstraint(lambda x: jnp.stack([x[i] for i in p.end] + more(x)) - ends)
    problem = hj.ControlProblem(
        [begin] + [(further, {"u": u})] * (p.stages - 1),
        jnp.array([[*p.start, 0.0, span(p)]]),
        terminal=lambda x: x[d] + p.terminal(jnp, x, x[d + 1]),
        control_set=ByLeaf(sets),
        terminal_constraint=at_end if p.end else None,
        path=path or None,
    )
    weights = problem.init(jax.random.key(0))
    return problem, Guess(weights, lambda s: jnp.stack([jnp.asarray(v) for v in guessed(p, s)]))


def by_hand(p: Published) -> tuple[float, float, int]:
    """Objective, seconds and steps in IPOPT of the same mesh in plain CasADi."""
    d, free, n = len(p.start), isinstance(p.time, Free), len(p.controls)
    x, u = ca.SX.sym("x", d + 2), ca.SX.sym("u", n)
    inputs = [u[i] for i in range(n)]
    F = ca.Function("F", [x, u], [ca.vertcat(*step(ca, p, [x[i] for i in range(d + 2)], inputs))])
    time = ca.MX.sym("time") if free else ca.MX(span(p))
    z, low, high, at = (
        ([time], [p.time.lower], [p.time.upper], [span(p)]) if free else ([], [], [], [])
    )
    rows, floor, roof = [], [], []
    state: Any = ca.vertcat(ca.DM([*p.start, 0.0]), time)
    for k in range(p.stages):
        control, after = ca.MX.sym(f"u{k}", n), ca.MX.sym(f"x{k + 1}", d + 2)
        z += [control, after]
        ranges = [p.box.get(i, (-INF, INF)) for i in range(d + 2)]
        low += [*p.lower, *(r[0] for r in ranges)]
        high += [*p.upper, *(r[1] for r in ranges)]
        at += [*p.controls, *map(float, guessed(p, (k + 1) / p.stages))]
        rows.append(F(state, control) - after)
        floor += [0.0] * (d + 2)
        roof += [0.0] * (d + 2)
        if p.mixed is not None:
            found = p.mixed(ca, state, ca.vertsplit(control))
            rows.append(found if isinstance(found, ca.MX) else ca.vertcat(*found))
            floor += [0.0 if p.kind == "==" else -INF] * rows[-1].numel()
            roof += [0.0] * rows[-1].numel()
        state = after
    for i, v in p.end.items():
        rows.append(state[i] - v)
        floor, roof = [*floor, 0.0], [*roof, 0.0]
    if p.ending is not None:
        rows.append(p.ending(ca, state))
        floor, roof = [*floor, 0.0], [*roof, 0.0]
    objective = state[d] + p.terminal(ca, state, state[d + 1])
    nlp = {"x": ca.vertcat(*z), "f": objective, "g": ca.vertcat(*rows)}
    quiet = {"print_level": 0, "tol": 1e-10, "bound_relax_factor": 0.0, "sb": "yes"}
    solver = ca.nlpsol(
        "s",
        "ipopt",
        nlp,
        {"ipopt": quiet, "print_time": False, "record_time": True, "show_eval_warnings": False},
    )
    found = solver(x0=at, lbx=low, ubx=high, lbg=floor, ubg=roof)
    return float(found["f"]), solver.stats()["t_wall_total"], solver.stats()["iter_count"]


push = lambda m, x, u: [x[1], u[0]]
energy = lambda m, x, u: u[0] ** 2 / 2
squares = lambda m, x, u: x[0] ** 2 + x[1] ** 2 + u[0] ** 2
rises = lambda x: {"start": (0.0, 1.0), "end": {0: 0.0, 1: -1.0}, "box": {0: (-INF, x)}}
thrust = {"lower": (-1.0,), "upper": (1.0,)}
soon = lambda m, x, time: time
ray = {
    "rate": drifts.rayleigh,
    "start": (-5.0, -5.0),
    "running": lambda m, x, u: x[0] ** 2 + u[0] ** 2,
}
van = {"rate": drifts.van_der_pol, "start": (0.0, 1.0), "running": squares}
tenth = {"time": 10.0, "stages": 100, **thrust}
arms, turned = np.pi / 4, 2 * np.pi / 3

PROBLEMS = [
    Published("Bryson-Denham, x <= 1/9", 4.0, push, running=energy, **rises(1 / 9)),
    Published("Bryson-Denham, x <= 1/6", 8 / 3, push, running=energy, **rises(1 / 6)),
    Published(
        "double integrator, speed <= 1.2",
        7.68,
        push,
        (-1.0, 0.0),
        {0: 0.0, 1: 0.0},
        running=energy,
        box={1: (-INF, 1.2)},
    ),
    Published(
        "double integrator, minimum time",
        2.0,
        push,
        (1.0, 0.0),
        {0: 0.0, 1: 0.0},
        Free(2.5, 0.1, 10.0),
        terminal=soon,
        **thrust,
    ),
    Published("Rayleigh", 29.376080, time=2.5, guess=lambda s: (-5 * (1 - s), -5 * (1 - s)), **ray),
    Published("Rayleigh, |u| <= 1", 44.6179, time=4.5, **ray, **thrust),
    Published(
        "Rayleigh, -1 <= u + x/6 <= 0",
        45.2602,
        mesh=6e-3,
        time=4.5,
        mixed=lambda m, x, u: (
            m.stack([u[0] + x[0] / 6, -1 - u[0] - x[0] / 6])
            if m is jnp
            else [u[0] + x[0] / 6, -1 - u[0] - x[0] / 6]
        ),
        controls=(-0.1,),
        **ray,
    ),
    Published("Van der Pol, |u| <= 1", 2.873304, **van, **tenth),
    Published("Van der Pol, x >= -1/4", 3.61519, box={0: (-0.25, INF)}, **van, **tenth),
    Published("Van der Pol, -.3 <= u <= 1", 2.86726, time=5.0, lower=(-0.3,), upper=(1.0,), **van),
    Published(
        "Lotka-Volterra fishing",
        1.34408,
        drifts.fishing,
        (0.5, 0.7),
        time=12.0,
        running=lambda m, x, u: (x[0] - 1) ** 2 + (x[1] - 1) ** 2,
        lower=(0.0,),
        upper=(1.0,),
        controls=(0.3,),
    ),
    Published(
        "Goddard's rocket, free time",
        -1.01283,
        drifts.goddard,
        (1.0, 0.0, 1.0),
        {2: 0.6},
        Free(0.2, 0.05, 1.0),
        terminal=lambda m, x, time: -x[0],
        lower=(0.0,),
        upper=(1.0,),
        box={0: (1.0, INF), 1: (0.0, INF), 2: (0.6, 1.0)},
        controls=(0.3,),
        guess=lambda s: (1 + 0.01 * s, 0.05 * s * (1 - s), 1 - 0.4 * s),
        stages=100,
    ),
    Published(
        "brachistochrone",
        1.801603,
        drifts.brachistochrone,
        (0.0, 10.0, 0.0),
        {0: 10.0, 1: 5.0},
        Free(2.0, 0.5, 10.0),
        terminal=soon,
        lower=(0.0,),
        upper=(np.pi,),
        controls=(1.0,),
        guess=lambda s: (10 * s, 10 - 5 * s, 9.9 * s),
    ),
    Published(
        "moon lander, free time",
        8.246211,
        lambda m, x, u: [x[1], u[0] - 1.5],
        (10.0, -2.0),
        {0: 0.0, 1: 0.0},
        Free(4.0, 1.0, 20.0),
        running=lambda m, x, u: u[0],
        lower=(0.0,),
        upper=(3.0,),
        controls=(1.5,),
    ),
    Published(
        "cart-pole swing-up",
        58.80767,
        drifts.cart_pole,
        (0.0,) * 4,
        {0: 1.0, 1: np.pi, 2: 0.0, 3: 0.0},
        2.0,
        running=lambda m, x, u: u[0] ** 2,
        lower=(-20.0,),
        upper=(20.0,),
        box={0: (-2.0, 2.0)},
        stages=100,
    ),
    Published(
        "robot arm, minimum time",
        9.14093,
        drifts.robot_arm,
        (4.5, 0.0, arms, 0.0, 0.0, 0.0),
        {0: 4.5, 1: turned, 2: arms, 3: 0.0, 4: 0.0, 5: 0.0},
        Free(9.0, 1.0, 30.0),
        terminal=soon,
        lower=(-1.0,) * 3,
        upper=(1.0,) * 3,
        box={0: (0.0, 5.0), 2: (0.05, np.pi - 0.05)},
        controls=(0.0,) * 3,
    ),
    Published(
        "hanging chain of length 4",
        5.0685,
        lambda m, x, u: [u[0], m.sqrt(1 + u[0] ** 2)],
        (1.0, 0.0),
        {0: 3.0, 1: 4.0},
        running=lambda m, x, u: x[0] * m.sqrt(1 + u[0] ** 2),
        controls=(2.0,),
        stages=100,
    ),
    Published(
        "batch reactor",
        -0.573545,
        drifts.batch,
        (1.0, 0.0),
        terminal=lambda m, x, time: -x[1],
        lower=(0.0,),
        upper=(5.0,),
        controls=(1.0,),
    ),
    Published(
        "Egerstedt, relaxed, x2 >= .4",
        0.98912,
        drifts.egerstedt,
        (0.5, 0.5),
        running=lambda m, x, u: x[0] ** 2 + x[1] ** 2,
        lower=(0.0,) * 3,
        upper=(1.0,) * 3,
        box={1: (0.4, INF)},
        mixed=lambda m, x, u: u[0] + u[1] + u[2] - 1,
        kind="==",
        controls=(1 / 3,) * 3,
        stages=100,
    ),
    Published(
        "harmonic oscillator to rest",
        0.511033,
        lambda m, x, u: [x[1], u[0] - x[0]],
        (1.0, 0.0),
        {0: 0.0, 1: 0.0},
        2.0,
        running=energy,
    ),
    Published(
        "catalyst mixing",
        -0.0480557,
        drifts.catalyst,
        (1.0, 0.0),
        terminal=lambda m, x, time: x[0] + x[1] - 1,
        lower=(0.0,),
        upper=(1.0,),
        controls=(0.5,),
        stages=100,
    ),
    Published(
        "Zermelo's boat",
        np.tan(4 * np.pi / 3) - np.tan(7 * np.pi / 12),
        drifts.boat,
        (3.66, -1.86),
        {0: 0.0, 1: 0.0},
        Free(5.0, 0.1, 20.0),
        terminal=soon,
        controls=(2.5,),
    ),
    Published(
        "orbit raising, time 3.32",
        -1.5252,
        drifts.orbit,
        (1.0, 0.0, 1.0, 1.0),
        {1: 0.0},
        3.32,
        terminal=lambda m, x, time: -x[0],
        ending=lambda m, x: x[2] ** 2 * x[0] - 1,
        controls=(1.0,),
        guess=lambda s: (1 + s / 2, 0.3 * s * (1 - s), 1 - s / 5, 1 - s / 4),
    ),
    Published(
        "container crane",
        0.0375195,
        drifts.crane,
        (0.0, 22.0, 0.0, 0.0, -1.0, 0.0),
        {0: 10.0, 1: 14.0, 2: 0.0, 3: 2.5, 4: 0.0, 5: 0.0},
        9.0,
        running=lambda m, x, u: (x[2] ** 2 + x[5] ** 2 + 0.01 * (u[0] ** 2 + u[1] ** 2)) / 2,
        lower=(-2.83374, -0.80865),
        upper=(2.83374, 0.71265),
        box={3: (-2.5, 2.5), 4: (-1.0, 1.0)},
        controls=(0.0, 0.0),
    ),
    Published(
        "batch reactor, temperature",
        -0.61077,
        drifts.heated,
        (1.0, 0.0),
        terminal=lambda m, x, time: -x[1],
        lower=(2.98,),
        upper=(3.98,),
        controls=(3.3,),
    ),
]
