"""Which CasADi plugins solve a reference problem, and with multipliers that are the costate?

A bounded linear-quadratic chain of 20 stages (2 states, 1 control, |u| <= 1), solved to 1e-12 by
projected Newton, which shares no code with CasADi. Every plugin (and `sqpmethod` with every QP solver)
runs in a process of its own, with a time limit, since some hang or end the process. `Direct` offers a
plugin only if it reports success and its multipliers are the costate to 1e-6.

    casadi_backends.py             the table (2 minutes)
    casadi_backends.py NAME [QP]   one plugin, here
"""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row

import hjcontrol as hj
from hjcontrol.networks import AbstractStage
from hjcontrol.solvers import casadi_backends
from hjcontrol.solvers.casadi_backends import PLUGINS, loadable_backends

QP = (
    "qrqp",
    "osqp",
    "highs",
    "daqp",
    "piqp",
    "proxqp",
    "qpoases",
    "hpipm",
    "superscs",
    "ipqp",
    "fatrop",
)
SECONDS = 30


class Cart(AbstractStage):
    """A cart pushed by the weight: position and speed."""

    def step(self, x, theta):
        return jnp.array([x[0] + 0.2 * x[1], x[1] + 0.2 * theta[0] - 0.05 * x[0]])

    def init(self, key):
        return jnp.zeros(1)


def problem() -> hj.ControlProblem:
    return hj.ControlProblem(
        [Cart()] * 20,
        jnp.array([[1.0, 0.5]]),
        terminal=lambda x: 2 * jnp.sum(x**2),
        running=[hj.control.Ridge(0.1), hj.control.StateCost(lambda x, _: 0.1 * jnp.sum(x**2))],
        control_set=hj.control.Box(-1.0, 1.0),
    )


def one(backend: str, qpsol: str | None) -> dict:
    """What one plugin finds, against projected Newton."""
    casadi_backends.REFUSED.clear()  # here they are tried
    casadi_backends.REFUSED_QP.clear()
    p = problem()
    exact = hj.solve(p, hj.solvers.Newton(tol=1e-12), key=jax.random.key(0))
    options = {} if qpsol is None else {"qpsol": qpsol, "qpsol_options": {"error_on_fail": False}}
    found = hj.solve(p, hj.solvers.Direct(backend=backend, options=options), key=jax.random.key(0))
    size = float(jnp.abs(exact.costate.runs[0]).max())
    apart = np.nan
    if found.multipliers is not None:
        gap = found.multipliers.runs[0][:, 1:] - exact.costate.runs[0][:, 1:]
        apart = float(jnp.abs(gap).max()) / size
    return {
        "reported": "success" if bool(found.result == hj.RESULTS.successful) else "no success",
        "at_bounds": int((jnp.abs(exact.weights[0]) >= 1).sum()),
        "objective_gap": float(found.objective - exact.objective),
        "multiplier_error": apart,
        "seconds": found.stats["solve_seconds"],
    }


def offered(found: dict) -> bool:
    return found["reported"] == "success" and found["multiplier_error"] < 1e-6


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)))
        return
    header("CasADi plugins on a bounded chain of 20 stages: multipliers against the costate")
    loads = loadable_backends()
    cases = [(p, None) for p in PLUGINS if loads[p] is True and p != "sqpmethod"]
    for backend, qp in [("ipopt", None), *[("sqpmethod", q) for q in QP], *cases[1:]]:
        command = [sys.executable, __file__, backend, *([qp] if qp else [])]
        name = backend + (f" + {qp}" if qp else "")
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            found = json.loads(ran.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            found = {"reported": f"nothing in {SECONDS} s"}
        except (IndexError, json.JSONDecodeError):
            words = (ran.stderr.strip().splitlines() or [f"exit {ran.returncode}"])[-1]
            found = {"reported": words[:100]}
        row(backend=name, offered=offered(found), **found)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
