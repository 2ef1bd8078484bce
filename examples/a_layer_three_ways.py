"""One softmax layer solved three ways, differentiated four ways, with a certificate for each answer.

    max over the simplex of p.z + eps H(p)        closed form, Newton on the dual, cvxpy

At eps = 0.01 the gradient that `jax.grad` finds for `jax.nn.softmax` is wrong: p (g - p.g) cancels.
"""

import jax
import jax.numpy as jnp

import hjcontrol as hj

jax.config.update("jax_enable_x64", True)

layer = hj.Softmax(0.1)
z = jnp.array([0.62, 0.58, 0.31, -0.4, 0.05])
print(layer.as_cvxpy(z), "\n")
for engine in ("closed", "newton", "cvxpy"):
    p = hj.layers.argmax(layer, z, engine)
    found = hj.certify(layer.program(z), p)
    print(f"{engine:<7} {p.round(6)}   gap {found.gap:9.2e}   {found.verdict}")

print("\nits hard limit, eps = 0:", hj.Softmax(0.0)(z))
print("\n", hj.certify(layer.program(z), jnp.full(5, 0.2)), "\n", sep="")

batch = jax.random.normal(jax.random.key(0), (6, 2))
print(
    hj.compare_gradients(
        hj.Softmax(0.01), batch, others={"jax.nn": lambda z: jax.nn.softmax(z / 0.01)}
    )
)
