"""Convex training against its peers: Adam, Clarabel, scikit-learn; accuracy beside time.

    python convex_training.py [lse|kullback|logistic|regression|gated] ...
    python convex_training.py lse 1x10 2x50        # of the nine cases (d, N), these

`lse`: f(x) = |x| on [-2, 2]^d, 4000 samples, eps = N^(-1/d). The convex fit and its polish against 3000
Adam steps from five seeds, jitted, compilation not counted, best test RMSE of the five. All in one run.
"""

import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import header, row
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression

import hjcontrol as hj
from hjcontrol.networks import AffineWeights
from hjcontrol.solvers.convex import (
    ConvexRegression,
    GatedReLU,
    SoftmaxReadout,
    fit_lse,
    polish,
    sample_gates,
)

CASES = ((1, 10), (1, 50), (1, 100), (1, 500), (2, 50), (2, 200), (2, 500), (4, 100), (4, 500))
SEEDS = range(5)


def norms(d: int):
    rng = np.random.default_rng(42 + d)
    x, test = rng.uniform(-2, 2, (4000, d)), rng.uniform(-2, 2, (800, d))
    return x, np.linalg.norm(x, axis=1), test, np.linalg.norm(test, axis=1)


def rmse(W, b, eps, x, y) -> float:
    f = eps * logsumexp((x @ np.asarray(W).T + np.asarray(b)) / eps, axis=1)
    return float(np.sqrt(np.mean((f - y) ** 2)))


def adam(x, y, count: int, eps: float):
    """One compiled program for all seeds: 3000 full-batch steps in a scan."""
    x, y, d = jnp.asarray(x), jnp.asarray(y), x.shape[1]
    method = optax.adam(0.006)

    def loss(theta):
        z = (x @ theta[0].T + theta[1]) / eps
        return jnp.mean((eps * jax.nn.logsumexp(z, axis=1) - y) ** 2)

    @jax.jit
    def train(key):
        one, two = jax.random.split(key)
        start = (
            0.5 / np.sqrt(d) * jax.random.normal(one, (count, d)),
            0.3 * jax.random.normal(two, (count,)),
        )

        def step(carry, _):
            theta, state = carry
            change, state = method.update(jax.grad(loss)(theta), state, theta)
            return (optax.apply_updates(theta, change), state), None

        (theta, _), _ = jax.lax.scan(step, (start, method.init(start)), None, length=3000)
        return theta

    return train.lower(jax.random.key(0)).compile()


def convex(x, y, count: int, eps: float):
    """The fit, then its polish; seconds of the polish, and processor seconds of each."""
    busy = time.process_time()
    fit = fit_lse(x, y, eps, max_atoms=count, max_steps=1)
    fitted = time.process_time()
    theta = fit.native.problem.layer(fit.native.candidate)
    clock, again = time.perf_counter(), time.process_time()
    polished = polish(x, y, theta, eps, decrease=1e-2, max_steps=15)
    cpu = (fitted - busy, time.process_time() - again)
    return fit, theta, polished, time.perf_counter() - clock, cpu


def lse(cases: tuple[tuple[int, int], ...] = CASES) -> None:
    header("Log-sum-exp layers: convex fit and polish against Adam, best of five")
    for d, count in cases:
        x, y, test, truth = norms(d)
        eps = count ** (-1 / d)
        convex(x, y, count, eps)  # not counted, like Adam's compilation
        runs = [convex(x, y, count, eps) for _ in range(5)]
        fit, theta, polished, *_ = runs[0]
        first = float(np.median([r[0].stats["solve_seconds"] for r in runs]))
        second = first + float(np.median([r[3] for r in runs]))
        cpu = np.median([r[4] for r in runs], axis=0)
        train = adam(x, y, count, eps)
        clock, busy = time.perf_counter(), time.process_time()
        found = [jax.block_until_ready(train(jax.random.key(100 * d + s))) for s in SEEDS]
        spent, worked = time.perf_counter() - clock, time.process_time() - busy
        W, b = (a[0] for a in polished.weights[0])
        best = min(rmse(*t, eps, test, truth) for t in found)
        row(
            d=d,
            N=count,
            atoms=fit.stats["atoms"],
            gap=float(fit.gap),
            price=float(fit.native.rounds[-1, 1]),
            rmse_convex=rmse(*theta, eps, test, truth),
            rmse_polished=rmse(W, b, eps, test, truth),
            rmse_adam=best,
            seconds_convex=first,
            seconds_polished=second,
            seconds_adam=spent,
            faster_convex=spent / first,
            faster_polished=spent / second,
            cpu_faster_convex=float(worked / cpu[0]),  # does not see what else the machine does
            cpu_faster_polished=float(worked / cpu.sum()),
            met=bool(
                rmse(W, b, eps, test, truth) <= best
                and spent >= 100 * first
                and spent >= 20 * second
            ),
        )


def kullback() -> None:
    header("Kullback-Leibler Hopf-Cole fits: the benchmark's sizes, then temperatures down to 1e-3")
    for d, count in CASES:
        x, y, test, truth = norms(d)
        _kullback_row(x, y, test, truth, count, count ** (-1 / d), 1)
    x, y, test, truth = norms(1)
    y = y + 0.05 * np.random.default_rng(1).standard_normal(len(y))  # no layer passes through noise
    for share in (1e-1, 1e-2, 1e-3):
        _kullback_row(x, y, test, truth, 50, share * float(np.ptp(y)), 1)


def _kullback_row(x, y, test, truth, count: int, eps: float, rounds: int) -> None:
    fits = {}
    for loss in ("kullback", "squared"):
        busy = time.process_time()
        fit = fit_lse(x, y, eps, max_atoms=count, max_steps=rounds, loss=loss)
        fits[loss] = fit, time.process_time() - busy
    fit, cpu = fits["kullback"]
    theta = fit.native.problem.layer(fit.native.candidate)
    row(
        d=x.shape[1],
        N=count,
        eps=eps,
        eps_of_range=eps / float(np.ptp(y)),
        atoms=fit.stats["atoms"],
        objective=float(fit.objective),
        gap=float(fit.gap),
        relative_gap=float(fit.relative_gap),
        price=float(fit.native.rounds[-1, 1]),
        rmse=rmse(*theta, eps, test, truth),
        seconds=fit.stats["solve_seconds"],
        cpu_seconds=cpu,
        squared_relative_gap=float(fits["squared"][0].relative_gap),
        squared_cpu_seconds=fits["squared"][1],
    )


def scikit(p, X, y, solver: str) -> tuple[AffineWeights, float]:
    """scikit-learn's weights and seconds; of two classes it trains one, with half the ridge."""
    scale = 2 if p.num_classes == 2 else 1
    strength = scale / (len(X) * 1e-2)
    model = LogisticRegression(
        C=strength, fit_intercept=False, solver=solver, tol=1e-12, max_iter=1000
    )
    clock = time.perf_counter()
    with warnings.catch_warnings():  # at 1e-12 its line searches end on roundoff, and say so
        warnings.simplefilter("ignore")
        theta = model.fit(np.column_stack([X, np.ones(len(X))]), y).coef_
    spent = time.perf_counter() - clock
    theta = np.concatenate([-theta / 2, theta / 2]) if scale == 2 else theta
    return AffineWeights(jnp.asarray(theta[:, :-1]), jnp.asarray(theta[:, -1])), spent


def scipys(p, control) -> tuple[AffineWeights, float]:
    """SciPy's L-BFGS-B on the same objective and its compiled gradient; compilation is not counted."""
    like = p.solve(max_steps=1).native.candidate
    flat, back = ravel_pytree(like)
    both = jax.jit(jax.value_and_grad(lambda v: control.objective(p.to_weights(back(v)))))
    jax.block_until_ready(both(flat))
    options = {"maxiter": 5000, "maxfun": 20000, "gtol": 1e-9, "ftol": 0.0}
    clock = time.perf_counter()
    end = minimize(
        lambda v: tuple(map(np.asarray, both(v))),
        np.zeros(flat.size),
        jac=True,
        method="L-BFGS-B",
        options=options,
    )
    return back(jnp.asarray(end.x)), time.perf_counter() - clock


def logistic() -> None:
    header(
        "Softmax readout, ridge 1e-2: our Newton, exponential cones, L-BFGS, SciPy, scikit-learn"
    )
    for name in ("digits", "wine", "breast_cancer", "iris"):
        data = hj.data.load(name)
        spread = data.features.std(axis=0)
        X = (data.features - data.features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        p = SoftmaxReadout(X, data.targets, 1e-2)
        ours = p.solve()
        cones = p.solve(engine="cvxpy")
        control, descent = p.as_control_problem(), hj.solvers.Gradient(optax.lbfgs(), tol=1e-9)
        found = hj.solve(control, descent, key=jax.random.key(0), max_steps=5000)
        runs = {
            "cones": (cones.native.candidate, cones.stats["solve_seconds"]),
            "descent": (p.from_weights(found.weights), found.stats["solve_seconds"]),
            "scipy": scipys(p, control),
            "newton-cg": scikit(p, X, data.targets, "newton-cg"),
            "newton-cholesky": scikit(p, X, data.targets, "newton-cholesky"),
        }
        apart = lambda a, b: max(float(np.abs(u - v).max()) for u, v in zip(a, b, strict=True))
        row(
            data=name, who="ours", objective=float(ours.objective),
            relative_gap=float(ours.relative_gap), seconds=ours.stats["solve_seconds"],
        )  # fmt: skip
        for who, (weights, seconds) in runs.items():
            value = float(control.objective(p.to_weights(weights)))
            row(
                data=name, who=who, above=value / float(ours.objective) - 1,
                weights=apart(ours.native.candidate, weights), seconds=seconds,
            )  # fmt: skip


def regression() -> None:
    header("Convex regression, d = 3: y = |x|^2/2 + 0.1 noise")
    rng = np.random.default_rng(0)
    for n in (50, 100, 200, 1000):
        x = rng.standard_normal((n, 3))
        p = ConvexRegression(x, 0.5 * (x**2).sum(1) + 0.1 * rng.standard_normal(n))
        s = p.solve()
        row(
            n=n,
            objective=float(s.objective),
            relative_gap=float(s.relative_gap),
            constraints=s.stats["constraints"],
            rounds=s.stats["num_steps"],
            seconds=s.stats["solve_seconds"],
        )


def gated() -> None:
    header("Gated two-layer network, diabetes, 50 gates of pyscnn's seed 778")
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    anchors = {0.01: 0.1823627, 0.03: 0.2419223, 0.1: 0.3165897}
    for penalty, pyscnn in anchors.items():
        p = GatedReLU(X, y, sample_gates(10, 50, seed=778), penalty)
        p.solve()
        s = p.solve()
        relu = p.relu_network(s.native.candidate)
        row(
            penalty=penalty,
            objective=float(s.objective),
            gap=float(s.gap),
            pyscnn_published=pyscnn,
            seconds=s.stats["solve_seconds"],
            relu_units=relu.problem.chain[0].out_size,
            relu_deviation=relu.stats["deviation"],
            relu_objective=float(relu.objective),
        )


if __name__ == "__main__":
    parts = {
        "lse": lse,
        "kullback": kullback,
        "logistic": logistic,
        "regression": regression,
        "gated": gated,
    }
    some = tuple(tuple(map(int, a.split("x"))) for a in sys.argv[1:] if a[0].isdigit())
    for name in [a for a in sys.argv[1:] if a in parts] or parts:
        parts[name](*([some] if name == "lse" and some else []))
