"""A library says "optimal"; the certificate says how far from it, and where.

    maximise p.z + eps H(p) over the simplex, eps = 0.1, 40 logits: a conic solver at its defaults

`hj.certify` takes the layer's program or the cvxpy problem itself, and any candidate.
"""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj

jax.config.update("jax_enable_x64", True)

z = np.random.default_rng(0).normal(size=40)
layer = hj.Softmax(0.1)
for solver in ("SCS", "CLARABEL"):
    problem = layer.as_cvxpy(z)
    problem.solve(solver=solver)
    p = problem.variables()[0].value
    print(f"{solver} at its defaults says: {problem.status!r}")
    print(hj.certify(layer.program(z), p))
    relative = np.abs(p - np.asarray(layer(z))) / np.asarray(layer(z))
    print(f"  the smallest weights are wrong by a factor of up to {relative.max():.1e}\n")

print("the closed form:")
print(hj.certify(layer.program(z), layer(z)))

# A linear program of one's own, judged from the multipliers that its solver left behind.
x = cp.Variable(3, name="x")
mine = cp.Problem(cp.Minimize(np.array([1.0, 2.0, 0.5]) @ x), [cp.sum(x) == 1, x >= 0])
mine.solve(solver="CLARABEL")
print("\na cvxpy problem of one's own:")
print(hj.certify(mine))
print("\nits second best vertex:")
print(hj.certify(mine, {"x": np.array([1.0, 0.0, 0.0])}).verdict, "\n")
assert hj.certify(layer.program(z), layer(jnp.asarray(z) + 1e-3 * z)).verdict == "suboptimal"
