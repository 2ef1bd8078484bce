"""Which adjoint for a neural ODE? The gradient's error, time and memory, by tolerance, on three flows.

    x' = tanh(W x + b) - decay x,     0 <= t <= T          against the costate equation solved by SciPy

`backsolve` integrates the state backwards too: where the flow contracts, that expands, and roundoff with
it. At decay 30 over T = 2 the state would grow by e^60 on its way back.

Writes which_adjoint.png.
"""

import diffrax
import jax
import jax.numpy as jnp

import hjcontrol as hj
from hjcontrol.reporting import plots

jax.config.update("jax_enable_x64", True)


def drift(x, theta):
    """A small neural vector field with a linear decay."""
    W, b, decay = theta
    return jnp.tanh(W @ x + b) - decay * x


keys = jax.random.split(jax.random.key(0), 3)
W, b = jax.random.normal(keys[0], (4, 4)), 0.1 * jax.random.normal(keys[1], (4,))
inputs = jax.random.normal(keys[2], (8, 4))
axes = plots.new_axes(11.0, 3.8, columns=3)

for ax, (T, decay) in zip(axes.flat, [(5.0, 0.0), (5.0, 2.0), (2.0, 30.0)], strict=True):
    weights = (W, b, jnp.asarray(decay))
    flow = hj.Flow(
        (drift, weights),
        T,
        solver=diffrax.Tsit5(),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        max_steps=512,
    )
    ladder = hj.adjoint_ladder(
        flow,
        tols=[1e-4, 1e-6, 1e-8],
        adjoints=["checkpoint", "direct", "backsolve"],
        inputs=inputs,
        weights=weights,
        title=f"T = {T:g}, decay {decay:g}",
    )
    print(ladder, "\n")
    plots.adjoint_ladder(ladder, ax)
    exact = [r for r in ladder.rungs if r.adjoint in ("checkpoint", "direct")]
    assert max(r.discrete_error for r in exact) < 1e-11

axes.flat[0].figure.savefig("which_adjoint.png")
print(
    "Take checkpoint; direct where second derivatives are needed (Newton); backsolve never blindly."
)
