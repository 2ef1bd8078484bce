"""Stages whose derivative rules are wrong on purpose.

    forward   y = x + h tanh(W x + b)       (or tanh(W x + b))
    reverse   p_x = p + h W^T d,   p_W = h d x^T,   p_b = h d,   d = p (1 - tanh^2)

`fault` and `target` are integer arrays, so that one compiled verification serves every fault.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

FAULTS = ("sign", "factor", "missing", "transposed", "stale")
NOWHERE, STATE, WEIGHTS = 0, 1, 2
H = 0.5


@jax.custom_vjp
def step(W, b, x, fault, target):
    del fault, target
    return x + H * jnp.tanh(W @ x + b)


def _forward(W, b, x, fault, target):
    return step(W, b, x, fault, target), (W, b, x, fault, target)


def _reverse(residuals, p):
    W, b, x, fault, target = residuals
    d = H * p * (1 - jnp.tanh(W @ x + b) ** 2)
    old = H * p * (1 - jnp.tanh(W @ (0.9 * x) + b) ** 2)
    to_state = jax.lax.switch(
        jnp.where(target == STATE, 1 + fault, 0),
        [
            lambda: p + W.T @ d,
            lambda: -(p + W.T @ d),
            lambda: 1.01 * (p + W.T @ d),
            lambda: W.T @ d,
            lambda: p + W @ d,
            lambda: p + W.T @ old,
        ],
    )
    to_W, to_b = jax.lax.switch(
        jnp.where(target == WEIGHTS, 1 + fault, 0),
        [
            lambda: (jnp.outer(d, x), d),
            lambda: (-jnp.outer(d, x), -d),
            lambda: (1.01 * jnp.outer(d, x), 1.01 * d),
            lambda: (jnp.outer(d, x), 0 * d),
            lambda: (jnp.outer(x, d), d),
            lambda: (jnp.outer(d, 0.9 * x), d),
        ],
    )
    return to_W, to_b, to_state, None, None


step.defvjp(_forward, _reverse)


class Planted(eqx.Module):
    """A residual layer with its own rule."""

    W: jax.Array
    b: jax.Array
    fault: jax.Array
    target: jax.Array

    def __call__(self, x):
        return step(self.W, self.b, x, self.fault, self.target)


def network(key, depth, width, at=None, fault=0, target=NOWHERE):
    """`depth` planted layers with random weights; the one `at` is at fault."""
    keys = jax.random.split(key, depth)
    draw = lambda k: jax.random.normal(k, (width, width + 1)) / jnp.sqrt(width)
    return [
        Planted(
            draw(k)[:, 1:],
            0.3 * draw(k)[:, 0],
            jnp.asarray(fault),
            jnp.asarray(target if i == at else NOWHERE),
        )
        for i, k in enumerate(keys)
    ]


def affine(factor=1.0, weights_factor=1.0):
    """`(f, theta)` with `f = W x + b`, whose rules for state and weights are off by a factor."""

    @jax.custom_vjp
    def f(x, theta):
        return theta[0] @ x + theta[1]

    def forward(x, theta):
        return f(x, theta), (x, theta)

    def reverse(residuals, p):
        x, (W, _) = residuals
        return factor * (W.T @ p), (weights_factor * jnp.outer(p, x), weights_factor * p)

    f.defvjp(forward, reverse)
    return f
