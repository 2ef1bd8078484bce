"""Weights of two and three values on few digits and narrow layers, where the task tells methods apart.

100 digits to learn from, 500 to test on, 64-8-8-10 without biases, tanh(2 W x / sqrt(in)). One start of
random signs a seed for all. The control keeps its first layers frozen at those signs and moves the last
one alone; `frozen` moves none. `moved` and `zeros` are shares of all weights. Straight-through is Adam on
latent weights.
"""

import itertools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import header, row
from sklearn.datasets import load_digits

import hjcontrol as hj
from hjcontrol.control import Binary, Box, Ternary, rounded
from hjcontrol.solvers import DiscreteMSA, Gradient

SIZES = (64, 8, 8, 10)
SEEDS = 5


def hidden(x, W):
    """A layer whose scale suits weights of size one."""
    return jnp.tanh(2.0 * W @ x / np.sqrt(W.shape[1]))


def last(x, W):
    """Logits."""
    return 2.0 * W @ x / np.sqrt(W.shape[1])


def task(seed: int, control_set=None) -> tuple[hj.ControlProblem, np.ndarray, np.ndarray]:
    """The problem on 100 digits, and 500 others."""
    features, labels = load_digits(return_X_y=True)
    features = (features - features.mean()) / features.std()
    order = np.random.default_rng(seed).permutation(len(labels))
    train, test = order[:100], order[100:600]
    shapes = [(b, a) for a, b in itertools.pairwise(SIZES)]
    stages = [(hidden, jnp.zeros(s)) for s in shapes[:-1]] + [(last, jnp.zeros(shapes[-1]))]
    problem = hj.ControlProblem(
        stages,
        features[train],
        labels[train],
        terminal=hj.control.softmax_cross_entropy,
        control_set=control_set,
    )
    return problem, features[test], labels[test]


def signs(problem: hj.ControlProblem, seed: int):
    """Random signs, shaped like the weights."""
    draw = np.random.default_rng(100 + seed)
    shapes = jax.eval_shape(problem.init, jax.random.key(0))
    return jax.tree.map(lambda a: jnp.asarray(draw.choice([-1.0, 1.0], a.shape)), shapes)


def straight_through(problem, start, project, steps=2000, rate=1e-2, fixed=0):
    """Adam on latent weights in [-1, 1], slopes taken at their rounding; the best rounding met."""
    adam = optax.adam(rate)
    live = tuple(float(r >= fixed) for r in range(len(start)))

    @jax.jit
    def run(latent):
        def step(carry, _):
            latent, state, best, least = carry
            near = project(latent)
            value, g = jax.value_and_grad(problem.objective)(near)
            better = value < least
            best = jax.tree.map(lambda a, b: jnp.where(better, a, b), near, best)
            g = tuple(
                jax.tree.map(lambda a, s=s: s * a, tree) for tree, s in zip(g, live, strict=True)
            )
            change, state = adam.update(g, state)
            latent = jax.tree.map(lambda a, c: jnp.clip(a + c, -1.0, 1.0), latent, change)
            return (latent, state, best, jnp.minimum(value, least)), None

        begin = (latent, adam.init(latent), project(latent), jnp.asarray(jnp.inf))
        return jax.lax.scan(step, begin, None, length=steps)[0][2]

    return run(jax.tree.map(lambda a: 0.5 * a, start))


def answers(seed: int) -> dict[str, tuple]:
    """Every method's weights."""
    binary, _, _ = task(seed, Binary())
    ternary, _, _ = task(seed, Ternary())
    boxed, _, _ = task(seed, Box(-1.0, 1.0))
    start = signs(binary, seed)
    key = jax.random.key(seed)
    solve = lambda problem, method, steps: hj.solve(
        problem, method, init=start, key=key, max_steps=steps
    )
    relaxed = solve(boxed, Gradient(optax.adam(1e-2)), 2000).weights
    return {
        "frozen": start,
        "frozen but the last layer, straight-through": straight_through(
            binary, start, Binary().project, fixed=2
        ),
        "binary MSA": solve(binary, DiscreteMSA(rho=0.5), 2000).weights,
        "binary MSA, batches of 50": solve(
            binary, DiscreteMSA(rho=0.5, batch_size=50), 2000
        ).weights,
        "ternary MSA": solve(ternary, DiscreteMSA(rho=0.5), 2000).weights,
        "ternary MSA, zeros priced": solve(
            ternary, DiscreteMSA(rho=0.5, sparsity=1e-3), 2000
        ).weights,
        "binary straight-through": straight_through(binary, start, Binary().project),
        "ternary straight-through": straight_through(ternary, start, Ternary().project),
        "float in the box, Adam": relaxed,
        "the same, rounded to binary": rounded(boxed, relaxed, Binary()).weights,
        "the same, rounded to ternary": rounded(boxed, relaxed, Ternary()).weights,
    }


def measure(seed: int) -> dict[str, dict[str, float]]:
    """J, test accuracy, and the shares of weights that moved and of zeros."""
    problem, features, labels = task(seed)
    start = signs(problem, seed)
    join = lambda weights: np.concatenate([np.ravel(a) for a in jax.tree.leaves(weights)])
    table = {}
    for name, weights in answers(seed).items():
        logits = jax.vmap(lambda x, w=weights: problem.chain(w, x))(jnp.asarray(features))
        table[name] = {
            "J": float(problem.objective(weights)),
            "test_percent": 100 * float(np.mean(np.argmax(logits, 1) == labels)),
            "moved": float(np.mean(join(weights) != join(start))),
            "zeros": float(np.mean(join(weights) == 0)),
        }
    return table


def main() -> None:
    header(
        "Weights of two and three values: 100 digits, 64-8-8-10, medians (least, greatest) of 5 seeds"
    )
    tables = [measure(seed) for seed in range(SEEDS)]
    for name in tables[0]:
        fields: dict[str, object] = {"method": name}
        for field in ("J", "test_percent", "moved", "zeros"):
            values = [table[name][field] for table in tables]
            fields[field] = statistics.median(values)
            fields[f"{field}_range"] = [round(min(values), 4), round(max(values), 4)]
        row(**fields)


if __name__ == "__main__":
    main()
