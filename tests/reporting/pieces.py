"""A small solved problem without a solver's compilation: the start, declared solved."""

import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.record import Record
from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem, Ridge, softmax_cross_entropy
from hjcontrol.networks import Dense, Residual, lift, readout
from hjcontrol.solvers.driver import solve
from hjcontrol.solvers.solver import AbstractHostSolver, Info, Outcome
from hjcontrol.verification.certificate import Certificate as RealCertificate
from hjcontrol.verification.certificate import Pair
from hjcontrol.verification.conditions import Condition, Conditions


class Still(AbstractHostSolver):
    """Reports a few falling figures and hands back the weights that it was given."""

    steps: int = eqx.field(static=True, default=3)
    result: str = eqx.field(static=True, default="successful")
    label: str = eqx.field(static=True, default="still")
    report: object = eqx.field(static=True, default=None)

    @property
    def name(self):
        return self.label

    def hosted(self, report, max_steps):
        return Still(self.steps, self.result, self.label, report)

    def check(self, problem):
        del problem

    def init(self, problem, weights, key):
        del problem, key
        return weights, False

    def step(self, problem, state):
        del problem
        for k in range(1, self.steps + 1):
            self.report(k, 2.0 / k, 10.0**-k)
        return state[0], True

    def info(self, state):
        del state
        return Info(jnp.asarray(2.0), jnp.asarray(1.0), jnp.asarray(1))

    def terminate(self, problem, state):
        del problem
        return jnp.asarray(state[1]), getattr(RESULTS, self.result)

    def postprocess(self, problem, state):
        del problem
        return Outcome(state[0])


def problem(n=12, d=3, width=4, depth=3, classes=3):
    rng = np.random.default_rng(0)
    stages = [
        lift(d, width),
        *[Residual(Dense(width, width), 0.5)] * depth,
        readout(width, classes),
    ]
    return ControlProblem(
        stages,
        jnp.asarray(rng.normal(size=(n, d))),
        jnp.arange(n) % classes,
        terminal=softmax_cross_entropy,
        running=Ridge(1e-3),
    )


def solution(p=None, **options):
    return solve(problem() if p is None else p, Still(**options), key=jax.random.key(0))


class Certificate(types.SimpleNamespace):
    """What the page and the commands read of a certificate."""

    rows = ()
    pairs = ("one",)

    def __bool__(self):
        return not self.failing(())

    def failing(self, allow):
        return [] if self.verdict in ("exact", *allow) else [self.verdict]

    worst = "somewhere"

    def as_record(self):
        tone = {"exact": "good", "refuted": "bad"}.get(self.verdict, "partial")
        facts = {"worst disagreement": 3e-16}
        return Record("Backward pass", str(self), self.verdict, tone, facts, tuple(facts))

    def __str__(self):
        return f"Certificate: {self.verdict} <b>not bold</b>"


def certificate(stages=5, verdict="exact"):
    pairs = ("backprop|pairing", "backprop|recursion")
    return Certificate(
        verdict=verdict,
        agreement=dict.fromkeys(pairs, 3e-16),
        finite_difference=1e-9,
        per_stage={
            pair: {"states": np.full(stages + 1, 1e-16), "weights": np.zeros(stages)}
            for pair in pairs
        },
    )


def judged(stages=5, value=3e-12):
    """A certificate with conditions of optimality, one as good as `value`; nothing is compiled."""
    gaps = 10.0 ** -np.arange(9.0, 9.0 + stages)
    holds = "holds" if value <= 1e-6 else "violated"
    rows = (
        Condition("stationarity", value, 1e-6, holds, f"{stages - 1} (<i>mine</i>)"),
        Condition("curvature of J", 0.5, -1e-6, "holds", least=True),
        Condition("dJ/dT", -0.1, None, "", remark="0 if free", necessary=False),
    )
    optimality = Conditions(rows, gaps, np.full(stages, np.nan), gaps, (0.5, 1e-9), 1e-6)
    sizes = {"samples": 1, "stages": stages, "weights": 1, "dtype": "float64"}
    pair = Pair("backprop|pairing", "exact", "exact", None, None, None, 3e-16)
    return RealCertificate(
        (), 1.0, None, 1e-9, sizes,
        pairs=(pair,), stationarity=value, feasibility=0.0, optimality=optimality,
    )  # fmt: skip
