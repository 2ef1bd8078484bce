"""Is your own backward pass right? A wrong rule, hidden in one layer of twelve, is found and named.

Each layer has a hand-written backward rule (`jax.custom_vjp`). In layer 7 the part for the weights is
one per cent too large: training still works, and no loss curve would show it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

import hjcontrol as hj

jax.config.update("jax_enable_x64", True)


def tanh_layer(fault: float):
    """A layer `x + tanh(W x)` with its own backward rule, the weights' part scaled by `fault`."""

    @jax.custom_vjp
    def layer(W, x):
        return x + jnp.tanh(W @ x)

    def forward(W, x):
        s = jnp.tanh(W @ x)
        return x + s, (W, x, s)

    def backward(saved, p):
        W, x, s = saved
        q = p * (1 - s**2)
        return fault * jnp.outer(q, x), p + W.T @ q

    layer.defvjp(forward, backward)
    return layer


class Layer(eqx.Module):
    """An equinox module, as anyone would write it."""

    W: jax.Array
    rule: object = eqx.field(static=True)

    def __call__(self, x):
        return self.rule(self.W, x)


right, wrong = tanh_layer(1.0), tanh_layer(1.01)
keys = jax.random.split(jax.random.key(0), 13)
network = [
    Layer(jax.random.normal(keys[k], (5, 5)) / 3, wrong if k == 7 else right) for k in range(12)
]
inputs = jax.random.normal(keys[12], (20, 5))

certificate = hj.verify(network, inputs=inputs, cost=lambda x: jnp.sum(x**2))
print(certificate)
assert certificate.verdict == "refuted"

print("\nand with the rule put right:\n")
network[7] = Layer(network[7].W, right)
certificate = hj.verify(network, inputs=inputs, cost=lambda x: jnp.sum(x**2))
print(certificate)
assert certificate.verdict == "exact"
