"""CasADi's NLP plugins: which load, their options, their words, and a watch on their iterations.

    nlpsol(name, plugin, nlp, options)         plugin: ipopt, fatrop, sqpmethod, qrsqp, ...

`REFUSED` did not solve a bounded reference problem, or not with multipliers that are the costate; the
others did, to 1e-6.
"""

import contextlib
import functools
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import casadi as ca
import numpy as np

from hjcontrol._ground.results import RESULTS
from hjcontrol.solvers.transcription import Transcription

PLUGINS = (
    "ipopt",
    "fatrop",
    "sqpmethod",
    "qrsqp",
    "feasiblesqpmethod",
    "blocksqp",
    "bonmin",
    "alpaqa",
    "sleqp",
    "uno",
    "scpgen",
    "ampl",
    "knitro",
    "snopt",
    "worhp",
    "madnlp",
)


# Plugins that load and are not offered: on a box-constrained reference problem of 20 stages, near their
# default options, their multiplier misses the costate by more than 1e-6, or there is none.
REFUSED = {  # measured by benchmarks/casadi_backends.py, which runs each in a process of its own
    "alpaqa": "it reported success with multipliers off by 7e-6 on the reference problem",
    "ampl": "it takes SX programs only",
    "blocksqp": "it asks for the linear solver ma27, which is not shipped",
    "bonmin": "it reports success with multipliers that are NaN",
    "scpgen": "it wants a QP solver of its own, and did not solve the reference problem",
}
REFUSED_QP = {
    "superscs": "it is known to report success at a wrong optimum, and gave nothing in 30 s",
    "hpipm": "it does not take the structure of the reference problem",
    "ipqp": "it did not solve the reference problem",
    "proxqp": "it did not reach the tolerance on the reference problem",
}


def refusal(backend: str, options: Mapping[str, Any]) -> str | None:
    """Why `backend`, or the QP solver that `options` name, is not offered; `None` if it is."""
    qp = options.get("qpsol")
    if backend in REFUSED:
        return f"the CasADi plugin {backend!r} is not offered: {REFUSED[backend]}"
    return f"the QP solver {qp!r} is not offered: {REFUSED_QP[qp]}" if qp in REFUSED_QP else None


@functools.cache
def loadable_backends() -> dict[str, bool | str]:
    """Each known plugin's name with `True` if it loads here, else the first line of the reason."""
    found: dict[str, bool | str] = {}
    for name in PLUGINS:
        try:
            ca.load_nlpsol(name)
            found[name] = True
        except Exception as error:  # a plugin may fail in any way; the table must still be printed
            lines = [line.strip() for line in str(error).splitlines() if "load" in line]
            found[name] = lines[-1] if lines else type(error).__name__
    return found


def options_for(
    backend: str,
    tol: float,
    max_steps: int,
    user: Mapping[str, Any],
    warm: bool = False,
    unit: float = 1.0,
    bounded: bool = False,
    scale: float | None = None,
) -> dict[str, Any]:
    """Options with which `backend` is silent, stops at `tol` and makes at most `max_steps` steps; `warm`:
    it begins near a solution, with multipliers; `unit`: of the objective's gradient, in which
    stationarity is judged (FATROP is given an objective in this unit); `bounded`: there are inequalities,
    at which FATROP stops at a product of distance and multiplier, so that it needs a finer tolerance;
    `scale`: of IPOPT's objective, 1 / `unit` without one.

    What `user` gives is merged in last; a nested dictionary is merged entry by entry.
    """
    quiet: dict[str, Any] = {
        "print_time": False,
        "error_on_fail": False,
        "show_eval_warnings": False,
    }
    if backend == "ipopt":
        quiet["ipopt"] = _ipopt(tol, max_steps, unit, scale) | (_WARM if warm else {})
    elif backend in ("sqpmethod", "feasiblesqpmethod", "qrsqp"):
        inner: dict[str, Any] = {"error_on_fail": False}
        if user.get("qpsol", "qrqp") == "qrqp":  # the others have switches of their own
            inner |= {"print_iter": False, "print_header": False}
        quiet |= {"max_iter": max_steps, "tol_du": tol * unit, "tol_pr": tol, "print_header": False}
        quiet |= {"qpsol": "qrqp", "qpsol_options": inner, "print_iteration": False}
        quiet |= {"print_status": False} if backend != "qrsqp" else {}
    elif backend == "fatrop":
        finer = max(1e-4 * tol, 1e-14) if bounded else tol
        quiet["fatrop"] = {"tol": finer, "max_iter": max_steps, "print_level": 0}
    for key, value in user.items():
        both = isinstance(value, Mapping) and isinstance(quiet.get(key), dict)
        quiet[key] = {**quiet[key], **value} if both else value
    return quiet


def plugin(
    backend: str, nlp: Any, options: Mapping[str, Any], user: Mapping[str, Any]
) -> ca.Function:
    """CasADi's solver for a program.

    **Raises:** `ValueError` for options of the user's that CasADi or the plugin does not know.
    """
    try:
        return ca.nlpsol("direct", backend, nlp, dict(options))
    except RuntimeError as error:
        lines = [s.strip() for s in str(error).splitlines()]
        said = next((s for s in lines if "option" in s.lower()), None)
        if not user or said is None:
            raise
        raise ValueError(
            f"Direct: {backend} does not take these `options`: {said.split(': ', 1)[-1]}. Found "
            f"{dict(user)}; the plugin's own options stand under its name, {{{backend!r}: {{...}}}}."
        ) from error


SMALL = 2000  # variables of a program that is written out in scalars


def scalars(t: Transcription, own: Mapping[str, ca.Function]) -> dict[str, Any]:
    """Options that write a small program out in scalars, without calls of a stage's function: a solve
    takes half to nine tenths of the time, and some tenths of a second go into building. Empty for a
    larger program, and for one that holds a factorisation of CasADi's, which has no scalars.

    `own`: derivatives, as `casadi.nlpsol` takes them in its options.
    """
    program = ca.Function("program", [t.nlp["x"]], [t.nlp["f"], t.nlp["g"]])
    if _written_out(program) is program:
        return {}
    return {name: _written_out(f) for name, f in own.items()} | {"expand": True}


def _written_out(f: ca.Function) -> ca.Function:
    """A function of a small program's variables in scalars; itself where there are none."""
    if f.size1_in(0) > SMALL:
        return f
    try:
        return f.expand()
    except RuntimeError:  # CasADi's word for a node without scalars
        return f


_WARM = {
    "warm_start_init_point": "yes",
    "mu_init": 1e-8,
    "warm_start_bound_push": 1e-12,
    "warm_start_mult_bound_push": 1e-12,
    "warm_start_slack_bound_push": 1e-12,
    "warm_start_bound_frac": 1e-12,
    "warm_start_slack_bound_frac": 1e-12,
}


def _ipopt(tol: float, max_steps: int, unit: float, scale: float | None) -> dict[str, Any]:
    return {
        "tol": tol,
        "dual_inf_tol": tol * unit,
        "constr_viol_tol": tol,
        # At a bound the violation of stationarity is min(distance, multiplier) <= sqrt(their product),
        # and it is the product that this bounds; below 1e-16 a distance has no digits left.
        "compl_inf_tol": max(tol**2, 1e-16) * unit,
        "acceptable_iter": 0,  # never "solved to acceptable level"
        "bound_relax_factor": 0.0,
        "nlp_scaling_method": "none",  # the scale is ours: IPOPT's own depends on the start alone
        "obj_scaling_factor": 1.0 / unit if scale is None else scale,
        "max_iter": max_steps,
        "print_level": 0,
        "sb": "yes",
        "linear_solver": "mumps",
        # Weights are shared by all samples: the KKT matrix is a dense border around many small blocks.
        # Approximate minimum degree, without the row permutation that IPOPT asks for by default, takes a
        # quarter of nested dissection's time on 500 points in the plane, half on 300 digits, 1.3 on 50.
        "mumps_permuting_scaling": 0,
        "mumps_pivot_order": 0,
    }


_BY_WORDS = {
    "Maximum_Iterations_Exceeded": RESULTS.max_steps_reached,
    "Infeasible_Problem_Detected": RESULTS.infeasible,
    "Invalid_Number_Detected": RESULTS.nonfinite,
}


def verdict(stats: Mapping[str, Any]) -> tuple[RESULTS, str]:
    """The result behind a plugin's statistics, and its own words."""
    words = str(stats.get("return_status", "no status"))
    words = f"status {words}" if words.lstrip("-").isdigit() else words  # FATROP's are numbers
    if words in _BY_WORDS:
        return _BY_WORDS[words], words
    if stats.get("success"):
        return RESULTS.successful, words
    unified = str(stats.get("unified_return_status", ""))
    if unified == "SOLVER_RET_LIMITED":
        return RESULTS.max_steps_reached, words
    if unified == "SOLVER_RET_INFEASIBLE":
        return RESULTS.infeasible, words
    return RESULTS.solver_failed, words


def residual(
    watch: "Watch", t: Transcription, end: Mapping[str, Any], unit: float, tol: float
) -> float:
    """By how much an end point misses the optimality conditions, whatever a plugin says of it: of
    `x - P(x - u/unit)` and `g - P(g + lam/unit)` the largest entry, times `unit`; P clips to the bounds,
    u is the Lagrangian's slope. Where there is a bound these are the smaller of distance and multiplier,
    whose product has no digits below 1e-16: there 1e-8 counts as `tol`, if that is finer."""
    slope, g = (np.array(a).ravel() for a in watch.parts(end["x"], end["lam_g"]))
    x, lam = end["x"], end["lam_g"]
    near = min(1.0, tol / 1e-8)
    off = unit * (x - np.clip(x - slope / unit, t.lbx, t.ubx))
    off *= np.where(np.isfinite(t.lbx) | np.isfinite(t.ubx), near, 1.0)
    row = g - np.clip(g, t.lbg, t.ubg)
    loose = unit * (g - np.clip(g + lam / unit, t.lbg, t.ubg)) * (t.lbg < t.ubg) * near
    found = np.concatenate([np.zeros(1), np.abs(off), np.abs(row) * unit, np.abs(loose)])
    return float(found.max()) if np.isfinite(found).all() else math.inf


MARGIN = 10.0  # of the tolerance: plugins measure in scales of their own


def judged(result: RESULTS, words: str, missed: float, allowed: float) -> tuple[RESULTS, str]:
    """The result by the optimality conditions themselves, and the plugin's words where they differ."""
    met = missed <= MARGIN * allowed
    if met:
        return RESULTS.successful, words
    if bool(result == RESULTS.successful):
        words = f"{words}; the optimality conditions are missed by {missed:.2g}, for {allowed:.2g}"
        return RESULTS.unconfirmed, words
    return result, words


@contextlib.contextmanager
def _late_interrupt(watch: "Watch") -> Iterator[None]:
    """Ctrl-C ends the solve at the next iterate and is delivered then.

    IPOPT's compiled loop swallows an exception that a signal raises inside it and reports a stop that
    the user asked for. A second Ctrl-C is not held back.
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not (main and watch.attached and callable(before)):
        yield
        return

    def note(number: int, frame: Any) -> None:
        if watch.interrupted:
            before(number, frame)
        watch.interrupted = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if watch.interrupted:
        before(signal.SIGINT, None)


class Watch(ca.Callback):
    """Told of every iterate: reports objective and `max |dL/d(x, theta)|`, and stops on Ctrl-C."""

    def __init__(self, t: Transcription, report: Callable[[int, float, float], None]):
        ca.Callback.__init__(self)
        x, g = t.nlp["x"], t.nlp["g"]
        self.shapes = {"x": x.numel(), "f": 1, "g": g.numel(), "lam_x": x.numel()}
        self.shapes |= {"lam_g": g.numel(), "lam_p": 0}
        lam_x, lam_g = ca.MX.sym("lam_x", x.numel()), ca.MX.sym("lam_g", g.numel())
        slope = ca.gradient(t.nlp["f"] + ca.dot(lam_g, g), x)
        norm = ca.Function("slope", [x, lam_x, lam_g], [ca.norm_inf(slope + lam_x)])
        self.slope = _written_out(norm)
        self.parts = ca.Function("parts", [x, lam_g], [slope, g])
        self.report, self.count = report, -1
        self.attached, self.interrupted, self.error = False, False, None
        self.construct("watch", {})

    def get_n_in(self) -> int:
        return ca.nlpsol_n_out()

    def get_n_out(self) -> int:
        return 1

    def get_name_in(self, i: int) -> str:
        return ca.nlpsol_out(i)

    def get_sparsity_in(self, i: int) -> ca.Sparsity:
        return ca.Sparsity.dense(self.shapes[ca.nlpsol_out(i)], 1)

    def eval(self, arg: list[ca.DM]) -> list[float]:
        # An exception may not cross CasADi's compiled loop; it is raised again after it.
        try:
            x, f, _, lam_x, lam_g, _ = arg
            self.count += 1
            if self.count:
                slope = float(self.slope(x, lam_x, lam_g))
                self.report(self.count, float(f), slope if math.isfinite(slope) else np.inf)
        except BaseException as error:
            self.error = error
        return [float(self.interrupted or self.error is not None)]


def run(
    solver: ca.Function, watch: Watch, t: Transcription, order: Any = None
) -> tuple[dict[str, np.ndarray], RESULTS, str, int]:
    """One call of the plugin: its end point, the result, its own words, gradient evaluations.

    `order`: a `StageOrder`, of the program that the solver was built for.

    **Raises:** `KeyboardInterrupt` if it came during the solve, wherever it was caught.
    """
    end, words = None, ""
    try:
        with _late_interrupt(watch):
            if order is None:
                own = {"lbx": t.lbx, "ubx": t.ubx, "lbg": t.lbg, "ubg": t.ubg}
                end = solver(x0=t.x0, lam_g0=t.lam_g0, **own)
            else:
                end = order.back(solver(**order.call(t)))
    except RuntimeError as error:  # the plugin's own, or a signal seen by CasADi
        if watch.interrupted or "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        words = str(error).strip().splitlines()[-1]
    if watch.error is not None:
        raise watch.error
    if end is None:
        unknown = {"f": np.full(1, np.nan), "lam_g": np.full(t.lbg.shape, np.nan)}
        return (
            {"x": t.x0, "lam_x": 0 * t.x0, **unknown},
            RESULTS.solver_failed,
            words,
            max(watch.count, 0),
        )
    stats = solver.stats()
    result, words = verdict(stats)
    count = stats.get("n_call_nlp_grad_f", max(watch.count, 0) + 1)
    return {k: np.array(v).ravel() for k, v in end.items()}, result, words, int(count)
