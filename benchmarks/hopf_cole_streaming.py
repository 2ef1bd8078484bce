"""Hopf-Cole at many queries from many atoms: value and gradient, ours against KeOps and a plain sum.

    u(x_i) = -eps log sum_j exp(-(g_j + |x_i - y_j|^2/(4t))/eps) + gauge        d = 8, t = 1, eps = 0.1

All in float64 on the same points, after a warm-up (KeOps compiles its formula in it); one row has 1024
queries against a million atoms. Errors are those of a sample of queries against `numpy.longdouble`, by
differences and not by completing the square. KeOps (`pip install pykeops`) is left out where it is not
installed. Pass `--small` for a tenth of the queries.
"""

import importlib.util
import resource
import sys

import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row, timed
from jax.scipy.special import logsumexp

import hjcontrol as hj
from hjcontrol.deformation.streaming import TILE

D, T, EPS = 8, 1.0, 0.1
SAMPLE = 64


def referee(X, y, g):
    """`u` and its gradient in extended precision, raw normalisation."""
    X, y, g = (np.asarray(a, np.longdouble) for a in (X, y, g))
    apart = X[:, None, :] - y[None, :, :]
    cost = g[None, :] + np.sum(apart**2, axis=2) / (4 * np.longdouble(T))
    least = cost.min(axis=1, keepdims=True)
    w = np.exp(-(cost - least) / np.longdouble(EPS))
    u = least[:, 0] - np.longdouble(EPS) * np.log(w.sum(axis=1))
    return u, np.einsum("ij,ijk->ik", w, apart) / (2 * T * w.sum(axis=1)[:, None])


def streamed(data, tile):
    """Ours: one jitted program for value and gradient."""
    loss = lambda X: (lambda u: (jnp.sum(u), u))(
        hj.hamilton_jacobi.hopf_cole_batch(data, X, T, EPS, normalisation="raw", tile=tile)
    )
    f = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def run(X):
        (_, u), slope = f(X)
        return u, slope

    return run


def plain(data, products):
    """Every cost at once: JAX's `logsumexp` of an (n, N) array, and reverse mode."""
    y, g = data.atoms, data.values

    def loss(X):
        if products:
            squares = jnp.sum(X**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None, :] - 2 * X @ y.T
        else:
            squares = jnp.sum((X[:, None, :] - y[None, :, :]) ** 2, axis=2)
        u = -EPS * logsumexp(-(g[None, :] + squares / (4 * T)) / EPS, axis=1)
        return jnp.sum(u), u

    f = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def run(X):
        (_, u), slope = f(X)
        return u, slope

    return run


def keops(data):
    """KeOps on the CPU: its log-sum-exp, and its softmax-weighted sum for the gradient."""
    from pykeops.numpy import LazyTensor

    y, g = np.asarray(data.atoms), np.asarray(data.values)

    def run(X):
        X = np.asarray(X)
        a, b, c = LazyTensor(X[:, None, :]), LazyTensor(y[None]), LazyTensor(g[None, :, None])
        scores = -(a.sqdist(b) / (4 * T) + c) / EPS
        u = -EPS * scores.logsumexp(axis=1)[:, 0]
        mean = scores.sumsoftmaxweight(b, axis=1)
        return u, (X - mean) / (2 * T)

    return run


def compare(name, run, X, data, repeats, sample=SAMPLE):
    """A row. The peak is the process's so far, read before the referee allocates anything."""
    jax.block_until_ready(run(X[:1000]))  # KeOps compiles here, once for every number of queries
    median, least, most = timed(lambda: run(X), repeats, warm=repeats > 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    at = np.linspace(0, len(X) - 1, sample).astype(int)
    u, slope = run(X[at])
    exact, exact_slope = referee(np.asarray(X)[at], data.atoms, data.values)
    row(
        method=name,
        queries=len(X),
        atoms=len(data.atoms),
        seconds=median,
        least=least,
        most=most,
        error_u=float(np.max(np.abs(np.asarray(u) - exact))),
        error_gradient=float(np.max(np.abs(np.asarray(slope) - exact_slope))),
        peak_process_gib=peak,
    )


def cloud(seed, atoms):
    one, two = jax.random.split(seed)
    y = jax.random.normal(one, (atoms, D))
    return hj.hamilton_jacobi.InitialData(y, jax.random.normal(two, (atoms,)))


def main() -> None:
    header("Hopf-Cole, value and gradient, d = 8, float64")
    scale = 10 if "--small" in sys.argv else 1
    one, two, three = jax.random.split(jax.random.key(0), 3)
    data, X = cloud(one, 10_000), jax.random.normal(two, (100_000 // scale, D))
    compare("hopf_cole_batch", streamed(data, TILE), X, data, 2)
    many = cloud(three, 1_000_000 // scale)
    compare("hopf_cole_batch", streamed(many, TILE), X[:1024], many, 1, sample=4)
    few = X[:2000]  # a plain sum's differences alone: 1.2 GiB
    compare("hopf_cole_batch", streamed(data, TILE), few, data, 3)
    compare("plain logsumexp, products", plain(data, True), few, data, 3)
    compare("plain logsumexp, differences", plain(data, False), few, data, 3)
    if importlib.util.find_spec("pykeops") is None:
        print("pykeops is not installed: left out")
        return
    compare("pykeops", keops(data), X, data, 1)


if __name__ == "__main__":
    main()
