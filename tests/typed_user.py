"""A user's script, read by a type checker in strict mode and never run. See test_typed.py."""

import jax

import hjcontrol as hj

x = jax.random.normal(jax.random.key(0), (20, 2))
y = (x[:, 0] > 0).astype(int)
stages = [hj.lift(2, 4), *[hj.Residual(hj.Dense(4, 4), 0.25)] * 3, hj.readout(4, 2)]
problem = hj.ControlProblem(stages, x, y, terminal=hj.softmax_cross_entropy, running=hj.Ridge(1e-2))
solution: hj.Solution = hj.solve(
    problem, hj.Newton(tol=1e-8), key=jax.random.key(1), max_steps=50, throw=True
)
objective: float = float(solution.objective)
solver: str = solution.solver
steps: tuple[int, ...] = solution.history.objective.shape
reached = bool(solution.result == hj.RESULTS.successful)
first = solution.weights[0]
again = hj.solvers.solve(problem, hj.solvers.by_name("newton"), init=solution)
chosen: str = hj.select(problem).name

certificate: hj.Certificate = hj.verify(solution, tol=1e-9)
gap: float = certificate.rows[0].gap
told: str = str(certificate)
both: hj.Comparison = hj.crosscheck(problem, solution, again)


@hj.deliberate("straight-through")
def rounded(z: jax.Array) -> jax.Array:
    return z.round()


whole: jax.Array = rounded(x)
layer = hj.layers.Softmax(0.5)
proof: hj.Optimality = hj.certify(layer, x[0])
distribution: jax.Array = layer(x[0])
parts = hj.split(hj.load("iris"), 0.8, key=jax.random.key(2))
classes: tuple[str, ...] | None = parts.train.classes
question = hj.analysis.temperature
picture = hj.plots.convergence
convex = hj.convex.HopfCole
