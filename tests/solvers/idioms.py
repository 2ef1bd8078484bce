"""A hundred ways in which users write dynamics: functions of six numbers, smooth where they are drawn."""

import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import hjcontrol as hj

PD = lambda x: jnp.outer(x[:3], x[:3]) + 3.0 * jnp.eye(3)  # positive definite
SQUARE = lambda x: x.reshape(2, 3) @ jnp.arange(6.0).reshape(3, 2) * 0.2 + 2 * jnp.eye(2)
IMAGE = lambda x: jnp.tile(x, 4).reshape(1, 1, 4, 6) * jnp.cos(jnp.arange(24.0)).reshape(1, 1, 4, 6)
KNOTS = jnp.linspace(-3.0, 3.0, 7)


def mass_matrix(x):
    M = jnp.array([[2.0 + jnp.cos(x[1]), 0.5 * jnp.sin(x[0])], [0.5 * jnp.sin(x[0]), 1.5]])
    return jnp.concatenate([x[2:4], jnp.linalg.solve(M, x[4:] - jnp.sin(x[:2]))])


def rk4(x):
    f = lambda z: jnp.stack([z[1], -jnp.sin(z[0]) + z[2], -z[2], z[4], -z[3], -0.1 * z[5]])
    k1 = f(x)
    k2 = f(x + 0.05 * k1)
    k3 = f(x + 0.05 * k2)
    return x + 0.1 / 6 * (k1 + 2 * k2 + 2 * k3 + f(x + 0.1 * k3))


def quaternion(x):
    q = x[:4] / jnp.linalg.norm(x[:4])
    w, v = q[0], q[1:]
    return v + 2 * jnp.cross(v, jnp.cross(v, x[3:]) + w * x[3:])


def rotation(x):
    c, s = jnp.cos(x[0]), jnp.sin(x[0])
    return jnp.array([[c, -s], [s, c]]) @ x[4:]


def newton(x):
    return lax.fori_loop(0, 4, lambda k, y: y - (y**3 + y - x) / (3 * y**2 + 1), x)


def spring(x):
    i, j = jnp.array([0, 1, 2, 3]), jnp.array([1, 2, 3, 4])
    force = jnp.tanh(x[j] - x[i])
    return jnp.zeros(6).at[i].add(force).at[j].add(-force)


def pool(x):
    return lax.reduce_window(
        IMAGE(x), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
    ).ravel()


def conv(x):
    kernel = jnp.sin(jnp.arange(9.0)).reshape(1, 1, 3, 3)
    return lax.conv_general_dilated(IMAGE(x), kernel, (1, 1), "SAME").ravel()


def of_stage(stage, *given):
    """A stage of the house with weights drawn once; a state of shape (2, 3) where it has two rows."""
    theta = stage.init(jax.random.key(0))

    def step(x):
        state = x.reshape(2, 3) if given else x
        return jnp.ravel(stage.step(state, theta, *given))

    return step


IDIOMS = {
    # taking a state apart and putting one together
    "unpacking": lambda x: jnp.stack([(a := tuple(x))[1], -a[0], a[2] * a[3], a[4], a[5], a[0]]),
    "stack": lambda x: jnp.stack([x[:3], x[3:]], axis=1).ravel(),
    "array of scalars": lambda x: jnp.array([x[1], -jnp.sin(x[0]), x[2] ** 2]),
    "array of rows": lambda x: jnp.array([[x[0], x[1]], [x[2], x[3]]]) @ x[4:],
    "hstack": lambda x: jnp.hstack([x[1], jnp.sin(x[:2])]),
    "vstack": lambda x: (jnp.vstack([x[:2], x[2:4]]) @ x[4:]).ravel(),
    "column_stack": lambda x: jnp.column_stack([x[:3], x[3:]]).ravel(),
    "split": lambda x: jnp.concatenate(jnp.split(x, 3)[::-1]),
    "unstack": lambda x: jnp.stack(jnp.unstack(x.reshape(2, 3))[::-1]).ravel(),
    "roll": lambda x: jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1),
    "pad": lambda x: jnp.pad(x, 1, mode="edge")[2:] - jnp.pad(x, 1)[:-2],
    "diff": jnp.diff,
    "flip": lambda x: x[::-1] * x,
    "fancy index": lambda x: x[jnp.array([0, 2, 4])] * x[jnp.array([1, 3, 5])],
    "set": lambda x: x.at[0].set(jnp.sin(x[1])),
    "add at": lambda x: x.at[1:3].add(x[3:5] ** 2),
    "multiply at": lambda x: x.at[2].multiply(x[0]),
    "apply at": lambda x: x.at[jnp.array([1, 4])].min(0.5 * x[0]),
    "at least at": lambda x: x.at[jnp.array([0, 5])].max(0.3 * x[2]),
    "springs": spring,
    "segment_sum": lambda x: jax.ops.segment_sum(jnp.sin(x), jnp.array([0, 0, 1, 1, 2, 2]), 3),
    "repeat": lambda x: jnp.repeat(x[:3], 2) * x,
    "meshgrid": lambda x: (jnp.add(*jnp.meshgrid(x[:2], x[2:4])) ** 2).ravel(),
    "triu": lambda x: jnp.triu(jnp.outer(x, x)).sum(axis=0),
    "diag": lambda x: jnp.diag(x[:3]) @ x[3:] + jnp.diagonal(x[:4].reshape(2, 2)).sum(),
    "dict state": lambda x: jax.tree.map(lambda a: a * 2, {"q": x[:3], "v": x[3:]})["v"],
    # linear algebra
    "matmul": lambda x: SQUARE(x) @ x[:2],
    "einsum": lambda x: jnp.einsum("ij,jk,k->i", SQUARE(x), SQUARE(x), x[:2]),
    "norm": lambda x: x / jnp.linalg.norm(x),
    "cross": lambda x: jnp.cross(x[:3], x[3:]),
    "kron": lambda x: jnp.kron(x[:2], x[2:5]),
    "trace": lambda x: jnp.trace(SQUARE(x)) * x,
    "mass matrix": mass_matrix,
    "solve": lambda x: jnp.linalg.solve(PD(x), x[3:]),
    "solve of a matrix": lambda x: jnp.linalg.solve(PD(x), jnp.stack([x[3:], x[:3]], 1)).ravel(),
    "inverse": lambda x: jnp.linalg.inv(SQUARE(x)) @ x[:2],
    "determinant": lambda x: jnp.linalg.det(PD(x)) * x,
    "slogdet": lambda x: jnp.linalg.slogdet(PD(x))[1] * x,
    "cholesky": lambda x: jnp.linalg.cholesky(PD(x)).ravel(),
    "cho_solve": lambda x: jsp.linalg.cho_solve(jsp.linalg.cho_factor(PD(x)), x[3:]),
    "triangular": lambda x: jsp.linalg.solve_triangular(PD(x), x[3:], lower=True),
    "lu_factor": lambda x: jsp.linalg.lu_solve(jsp.linalg.lu_factor(SQUARE(x)), x[:2]),
    "expm": lambda x: jsp.linalg.expm(0.1 * SQUARE(x)) @ x[:2],
    "matrix_power": lambda x: jnp.linalg.matrix_power(0.3 * SQUARE(x), 3) @ x[:2],
    "eigvalsh": lambda x: jnp.linalg.eigvalsh(PD(x)[:2, :2]),
    "eigh of 5": lambda x: jnp.linalg.eigvalsh(jnp.diag(x[:5]) + jnp.outer(x[:5], x[:5])),
    "svd": lambda x: jnp.linalg.svd(SQUARE(x), compute_uv=False),
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)),
    # choices
    "where": lambda x: jnp.where(x > 0, x**2, jnp.sin(x)),
    "select": lambda x: jnp.select([x < -1, x < 0, x < 1], [x**2, 2 * x, jnp.sin(x)], 3 * x),
    "piecewise": lambda x: jnp.piecewise(x, [x < 0, x >= 1], [jnp.sin, jnp.cos, jnp.exp]),
    "cond": lambda x: lax.cond(x[0] > 0, lambda: x**2, lambda: jnp.sin(x)),
    "switch": lambda x: lax.switch(
        (x[0] > 0).astype(int) + (x[1] > 0), [jnp.sin, jnp.cos, jnp.tanh], x
    ),
    "choose": lambda x: jnp.choose((x[:3] > 0).astype(int), [x[3:], 2 * x[:3]], mode="clip"),
    "clip": lambda x: jnp.clip(x, -0.5, 0.5) + jnp.minimum(x, 1.0),
    "sign": lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x) + 0.1),
    "heaviside": lambda x: jnp.heaviside(x, 0.5) * x,
    "argmax": lambda x: x[jnp.argmax(x)] * x,
    "argmin": lambda x: jnp.argmin(x.reshape(2, 3), axis=1) * x[:2],
    "sort": lambda x: jnp.sort(x) * jnp.arange(6.0),
    "argsort": lambda x: x[jnp.argsort(x)] ** 2,
    "median": lambda x: jnp.median(x[:5]) * x,
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "max": lambda x: jnp.max(x.reshape(2, 3), axis=1),
    # tables and signals
    "interp": lambda x: jnp.interp(x, KNOTS, jnp.sin(2 * KNOTS)),
    "searchsorted": lambda x: jnp.searchsorted(KNOTS, x) * x,
    "digitize": lambda x: jnp.take(jnp.cos(KNOTS), jnp.digitize(x, KNOTS[1:-1])) * x,
    "polyval": lambda x: jnp.polyval(jnp.array([1.0, -2.0, 0.5, 3.0]), x),
    "convolve": lambda x: jnp.convolve(x, jnp.array([0.25, 0.5, 0.25]), mode="same"),
    "conv": conv,
    "max pool": pool,
    "mean pool": lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "VALID") / 2,
    "cumsum": lambda x: jnp.cumsum(x) * jnp.cumprod(1 + 0.1 * x),
    "min pool": lambda x: lax.reduce_window(x, jnp.inf, lax.min, (3,), (1,), "SAME"),
    "log of a running sum": lax.cumlogsumexp,
    "searchsorted, right": lambda x: jnp.searchsorted(KNOTS, x, side="right") * x,
    "one_hot": lambda x: jax.nn.one_hot(jnp.round(x[0]).astype(int) % 6, 6) * x,
    # functions
    "trigonometric": lambda x: jnp.sin(x) * jnp.arctan2(x, 2.0) + jnp.sinc(x + 3),
    "gamma": lambda x: jsp.special.gammaln(jnp.abs(x) + 0.2),
    "digamma": lambda x: jsp.special.digamma(jnp.abs(x) + 0.5),
    "erf": lambda x: jsp.special.erf(x) + jax.nn.gelu(x, approximate=False),
    "activations": lambda x: jax.nn.silu(x) + jax.nn.softplus(x) + jax.nn.elu(x) + jax.nn.gelu(x),
    "softmax": lambda x: jax.nn.softmax(x) * jax.nn.logsumexp(x) + jax.nn.log_softmax(x),
    "variance": lambda x: (x - jnp.mean(x)) / jnp.sqrt(jnp.var(x) + 1e-3),
    "power": lambda x: jnp.power(jnp.abs(x) + 1, 1.7) + x**3 + 2.0**x,
    "hypot": lambda x: jnp.hypot(x[:3], x[3:] + 3.0),
    "remainder": lambda x: jnp.mod(x, 0.7) + jnp.floor(x),
    # loops and transformations
    "rk4": rk4,
    "quaternion": quaternion,
    "rotation": rotation,
    "newton inside": newton,
    "scan": lambda x: lax.scan(lambda c, a: (0.9 * c + a, jnp.sin(c)), 0.0, x)[1],
    "vmap": lambda x: jax.vmap(lambda a: a * jnp.sin(a))(x.reshape(3, 2)).ravel(),
    "map": lambda x: lax.map(lambda a: jnp.tanh(a) * a, x),
    "associative scan": lambda x: lax.associative_scan(jnp.add, jnp.sin(x)),
    "grad inside": lambda x: -jax.grad(lambda q: jnp.sum(jnp.cos(q)) + q[0] * q[1] ** 2)(x),
    "jacobian inside": lambda x: jax.jacfwd(jnp.sin)(x) @ x,
    "named": lambda x: checkpoint_name(jnp.sin(x), "sines") * x,
    "checkpoint": lambda x: jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(x),
    "stop_gradient": lambda x: lax.stop_gradient(jnp.sin(x)) * x,
    "while": lambda x: lax.while_loop(lambda c: jnp.sum(c**2) > 1e-2, lambda c: 0.5 * c, x),
    # the house's own
    "Hidden, softplus": of_stage(hj.networks.Dense(6, 6, hj.networks.SoftplusUnits(0.5))),
    "Sparsemax": lambda x: hj.layers.Sparsemax(1.0)(x) * x,
    "Softmax": lambda x: hj.layers.Softmax(0.5)(x),
    "LSTM": of_stage(hj.networks.LSTM(2, 3), jnp.array([0.3, -0.7])),
    "DiagonalSSM": of_stage(hj.networks.DiagonalSSM(2, 3, 0.1), jnp.array([0.3, -0.7])),
}
REFUSED = {"fft": "fft", "svd": "svd", "eigh of 5": "eigh"}
