"""The questions of `hjcontrol.analysis` at real size: digits far out, forgetting, curvature.

far out     AUROC of five scores, trained on digits 0-4: other digits, noise, rescaled digits
forgetting  digits 0-4, then 5-9, at several eps: accuracy lost, and the overlap of the weights before
curvature   the published robustness run (1-D, |x|, N = 30, Adam, best of three): bound over measured
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import header, row
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import hjcontrol as hj

extrapolation, continual = hj.analysis.extrapolation, hj.analysis.continual
robustness = hj.analysis.robustness


def mahalanobis(train, labels, x):
    """Least squared distance to a class mean in the shared covariance, slightly ridged."""
    means = np.stack([train[labels == c].mean(axis=0) for c in np.unique(labels)])
    centred = train - means[labels]
    precision = np.linalg.inv(centred.T @ centred / len(train) + 1e-3 * np.eye(train.shape[1]))
    away = x[:, None, :] - means[None]
    return np.einsum("nci,ij,ncj->nc", away, precision, away).min(axis=1)


def far_out():
    """A trained network on digits 0-4; scores from its logits, its features and its inputs."""
    X, y = load_digits(return_X_y=True)
    X = X / 16.0
    old, labels, new = X[y < 5], y[y < 5], X[y >= 5]
    draw = np.random.default_rng(0)
    order = draw.permutation(len(old))
    train, held = order[:600], order[600:]
    nets = hj.networks
    chain = [nets.lift(64, 16), *[nets.Residual(nets.Dense(16, 16), 0.5)] * 4, nets.readout(16, 5)]
    problem = hj.ControlProblem(
        chain,
        old[train],
        labels[train],
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(1e-3),
    )
    method = hj.solvers.Gradient(optax.lbfgs(), tol=1e-6)
    solved = hj.solve(problem, method, key=jax.random.key(1), max_steps=300)
    net = lambda x: problem.chain(solved.weights, x)
    inside = old[held]
    right = np.mean(np.argmax(jax.vmap(net)(jnp.asarray(inside)), axis=1) == labels[held])
    row(experiment="far out", network="residual, width 16", test_accuracy=float(right))
    near = jnp.asarray(old[train])
    gaps = jnp.sum((near[:, None, :] - near[None, :100, :]) ** 2, axis=2)
    width = float(jnp.sqrt(jnp.median(jnp.sort(gaps, axis=0)[1])) / 2)  # half the usual distance
    cover = extrapolation.coverage_of_samples(near, width)
    model = hj.layers.LogitHead(net)

    @jax.jit
    @jax.vmap
    def scores(x):
        return {
            "coverage energy": cover.energy(x),
            "coverage distance": cover.distance(x),
            "gap": -extrapolation.gap(model, x).gap,
            "max softmax": -jnp.max(model.weights(x)),
        }

    everything = lambda x: {
        **{k: np.asarray(v) for k, v in scores(jnp.asarray(x)).items()},
        "mahalanobis": mahalanobis(old[train], labels[train], x),
    }
    kept = everything(inside)
    sets = {
        "digits 5-9": new,
        "uniform noise": draw.uniform(size=(len(inside), 64)),
        "digits 0-4 times 3": 3.0 * inside,
        "digits 0-4 times 0.3": 0.3 * inside,
    }
    for name, x in sets.items():
        out = everything(x)
        truth = np.r_[np.zeros(len(inside)), np.ones(len(x))]
        auroc = {k: float(roc_auc_score(truth, np.r_[kept[k], out[k]])) for k in kept}
        row(experiment="far out", against=name, samples=len(x), **auroc)


def forget():
    """Three atoms a class, 200 steps at the rate eps/2, which fits both tasks at every eps."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order] / 16.0, y[order]
    tasks = []
    for kept in (y < 5, y >= 5):
        a, b = jnp.asarray(X[kept]), jnp.asarray(y[kept])
        tasks.append((a[:400], b[:400], a[400:], b[400:]))
    atoms = np.concatenate([X[y == c][:3] for c in range(10)])
    classes = np.repeat(np.arange(10), 3)

    def head(weights, eps):
        return hj.layers.ClassHead(hj.layers.LSE(*weights, eps), classes)

    def loss(weights, eps, task):
        scores = jax.vmap(head(weights, eps).scores)(task[0]) / eps
        return -jnp.mean(jax.nn.log_softmax(scores, axis=1)[jnp.arange(len(task[1])), task[1]])

    @jax.jit
    def fit(model, task):
        weights, eps = model

        def step(weights, _):
            slope = jax.grad(loss)(weights, eps, task)
            return jax.tree.map(lambda a, g: a - 0.5 * eps * g, weights, slope), None

        return jax.lax.scan(step, weights, None, length=200)[0], eps

    @jax.jit
    def accuracy(model, task):
        return jnp.mean(jax.vmap(head(*model).predict)(task[2]) == task[3])

    for eps in (0.03, 0.1, 0.3, 1.0, 3.0):
        weights = jnp.asarray(atoms), -jnp.sum(jnp.asarray(atoms) ** 2, axis=1) / 2
        model = weights, jnp.asarray(eps)
        shared = continual.overlap(head(*model), tasks[0][0], tasks[1][0]).shared
        found = continual.forgetting(model, tasks, fit, accuracy)
        row(
            experiment="forgetting",
            eps=eps,
            overlap_before=float(shared),
            first_after_first=float(found.accuracy[0, 0]),
            first_after_second=float(found.accuracy[1, 0]),
            second_after_second=float(found.accuracy[1, 1]),
            forgotten=float(found.forgotten[0]),
        )


def curvature():
    """Published bound over measured, eps = .08 ... 1: 1.015, 1.010, 1.008, 1.005, 1.008, 1.095."""
    x = np.random.default_rng(99).uniform(-2, 2, 500)
    x, test = jnp.asarray(x), jnp.linspace(-1.8, 1.8, 200)
    temperatures = jnp.array([0.08, 0.12, 0.2, 0.35, 0.6, 1.0])
    value = lambda w, e, x: e * jax.nn.logsumexp((w[0] * x + w[1]) / e)
    loss = lambda w, e: jnp.mean((jax.vmap(lambda a: value(w, e, a))(x) - jnp.abs(x)) ** 2)
    adam = optax.adam(0.01)

    def train(w, e):
        def step(carry, _):
            w, state = carry
            change, state = adam.update(jax.grad(loss)(w, e), state)
            return (optax.apply_updates(w, change), state), None

        (w, _), _ = jax.lax.scan(step, (w, adam.init(w)), None, length=4000)
        return w, loss(w, e)

    starts = []
    for seed in range(3):
        draw = np.random.default_rng(seed)
        starts.append((0.4 * draw.standard_normal(30), 0.2 * draw.standard_normal(30)))
    starts = jax.tree.map(lambda *a: jnp.stack(a), *starts)
    each = jax.jit(jax.vmap(jax.vmap(train, in_axes=(0, None)), in_axes=(None, 0)))
    weights, losses = each(starts, temperatures)
    for i, eps in enumerate(temperatures):
        k = int(jnp.argmin(losses[i]))
        layer = hj.layers.LSE(weights[0][i, k][:, None], weights[1][i, k], eps)
        found = jax.jit(jax.vmap(lambda a, layer=layer: robustness.layer_curvature(layer, a)))(
            test[:, None]
        )
        measured = float(jnp.max(found.norm))
        error = jax.vmap(layer)(test[:, None]) - jnp.abs(test)
        row(
            experiment="curvature",
            eps=float(eps),
            rmse=float(jnp.sqrt(jnp.mean(error**2))),
            measured=measured,
            published_over_measured=float(found.published[0]) / measured,
            sharp_over_measured=float(found.sharp[0]) / measured,
        )


if __name__ == "__main__":
    header("questions at real size")
    far_out()
    forget()
    curvature()
