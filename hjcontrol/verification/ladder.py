r"""Which adjoint for a flow? Each one's gradient error at each tolerance, its time and its memory.

    error = |g - g*| / |g*|,   g = (dJ/dx0, dJ/dtheta),   J = mean_i cost(x^i(t1))

against  the costate equation, integrated by SciPy at 1e-12 (`costate_reference`): what the flow means;
         the discrete adjoint of the very same steps (`DirectAdjoint`): what the program computes.

An adjoint that is exact for its steps has no error of the second kind and the solver's of the first.
Time is a median of warm runs, blocked until ready, compilation apart. Memory is XLA's `temp_size`: what
the compiled gradient allocates besides its arguments and results.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from hjcontrol._ground.record import Quantity, Record, Told
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import Tree, TreeLike
from hjcontrol.networks import Flow
from hjcontrol.networks.flow_numerics import ADJOINTS, adjoint_named, capable
from hjcontrol.verification.costate_reference import costate_reference

WORSE = 10.0  # times the best error at the same tolerance: an adjoint that breaks down


@renamed(tolerance="tol")
class Rung(Shown):
    """One adjoint at one tolerance. Errors are NaN where the solve or its adjoint failed."""

    tol: float
    adjoint: str
    costate_error: float
    discrete_error: float
    seconds: float
    compile_seconds: float
    memory: int
    note: str


class AdjointLadder(Told, Shown):
    """What `hj.adjoint_ladder` returns. `print` it for the table; `hj.reporting.plots.adjoint_ladder`
    draws it."""

    rungs: tuple[Rung, ...]
    accuracy: str  # "tolerance" or "step"
    title: str

    def at(self, tol: float) -> tuple[Rung, ...]:
        """The rungs of one tolerance."""
        return tuple(r for r in self.rungs if r.tol == tol)

    @property
    def choice(self) -> dict[float, str]:
        """For each tolerance the fastest adjoint among those within 3 times the least error."""
        found = {}
        for tol in dict.fromkeys(r.tol for r in self.rungs):
            sound = [r for r in self.at(tol) if np.isfinite(r.costate_error)]
            least = min((r.costate_error for r in sound), default=np.inf)
            good = [r for r in sound if r.costate_error <= 3 * least]
            found[tol] = min(good, key=lambda r: r.seconds).adjoint if good else "none"
        return found

    @property
    def breakdowns(self) -> tuple[Rung, ...]:
        """Rungs that failed, or are `WORSE` times less accurate than the best at their tolerance."""

        def broken(r: Rung) -> bool:
            errors = [s.costate_error for s in self.at(r.tol)]
            least = min((e for e in errors if np.isfinite(e)), default=np.inf)
            return not r.costate_error <= WORSE * least

        return tuple(r for r in self.rungs if broken(r))

    def as_record(self) -> Record:
        """What this result says of itself."""
        broken = self.breakdowns
        row = lambda r: {
            self.accuracy: Quantity(r.tol, 1),
            "adjoint": r.adjoint,
            "costate eq.": Quantity(r.costate_error, 2),
            "same steps": Quantity(r.discrete_error, 2),
            "run": Quantity(1e3 * r.seconds, 3, "ms"),
            "compile": Quantity(r.compile_seconds, 2, "s"),
            "memory": Quantity(r.memory // 1024, unit="KiB"),
            "": r.note or ("breaks down" if r in broken else ""),
        }
        chosen = ", ".join(f"{t:.0e}: {name}" for t, name in self.choice.items())
        return Record(
            f"Adjoints of {self.title}",
            "relative error of the gradient",
            rows={"": [row(r) for r in self.rungs]},
            notes=(f"use (fastest within 3x of the least error)  {chosen}",),
        )


@renamed(tolerances="tols")
def adjoint_ladder(
    flow: Flow,
    tols: Sequence[float] = (1e-4, 1e-6, 1e-8),
    adjoints: Sequence[Any] = ("checkpoint", "direct", "backsolve"),
    *,
    inputs: TreeLike,
    weights: Tree,
    cost: Callable[[Tree], Float[Array, ""]] | None = None,
    repeats: int = 5,
    title: str = "a flow",
) -> AdjointLadder:
    """Measure diffrax's adjoints on a flow.

    **Arguments:**

    - `flow`: a `Flow`, one piece; its solver and controller are used, its adjoint is not.
    - `tols`: set as `rtol` and `atol`; as `dt0` where the flow has constant steps.
    - `adjoints`: names (`checkpoint`, `twice`, `direct`, `backsolve`, `forward`) or diffrax adjoints.
    - `inputs`: an ensemble of states, leaves `(n, ...)`; `weights`: one piece's, as `flow.init` gives.
    - `cost`: of one sample's final state, a scalar; default `|x|^2 / 2`.
    - `repeats`: timed runs, after one that is not counted.

    **Returns:** an `AdjointLadder`.

    **Raises:** `ValueError` for anything but a flow, no tolerances or adjoints, or tolerances that are
    not positive.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> flow = hj.networks.Flow(hj.networks.Dense(1, 1), 1.0)
        >>> weights = flow.init(jax.random.key(0))
        >>> ladder = hj.adjoint_ladder(
        ...     flow, [1e-4], ["direct"], inputs=jnp.ones((2, 1)), weights=weights, repeats=1
        ... )
        >>> len(ladder.rungs)
        1
    """
    tols, named = _checked(flow, tols, adjoints)
    x = jax.tree.map(jnp.asarray, inputs)
    one = (lambda a: sum(jnp.sum(b**2) for b in jax.tree.leaves(a)) / 2) if cost is None else cost
    mean = lambda a: jnp.mean(jax.vmap(one)(a))
    truth, _ = ravel_pytree(costate_reference(flow, x, weights, mean))
    gradients = [(n, *_compiled(flow, a, mean, x, weights, tols[0])) for n, a in named]
    same = next((run for name, run, *_ in gradients if name == "direct"), None)
    if same is None:
        same = _compiled(flow, "direct", mean, x, weights, tols[0])[0]
    rungs = []
    for tol in tols:
        at = jnp.asarray(tol, truth.dtype)
        discrete = ravel_pytree(same(x, weights, at))[0]
        for name, run, compiling, memory in gradients:
            found, seconds, note = _timed(run, (x, weights, at), repeats)
            errors = _relative(found, truth), _relative(found, discrete)
            rungs.append(Rung(tol, name, *errors, seconds, compiling, memory, note))
    return AdjointLadder(tuple(rungs), "tolerance" if flow.numerics.by_tolerance else "step", title)


def _checked(
    flow: Any, tols: Any, adjoints: Sequence[Any]
) -> tuple[list[float], list[tuple[str, Any]]]:
    if not isinstance(flow, Flow):
        raise ValueError(
            f"adjoint_ladder: `flow` must be a Flow; found {type(flow).__name__}. "
            "Wrap the drift: Flow(drift, t1)."
        )
    tols = [float(t) for t in np.atleast_1d(tols)]
    if not tols or not all(0 < t < np.inf for t in tols):
        raise ValueError(f"adjoint_ladder: `tols` must be positive, one at least; found {tols}.")
    for adjoint in adjoints:
        adjoint_named(adjoint)
    named = [(_name(a), a) for a in adjoints]
    if not named:
        raise ValueError("adjoint_ladder: one adjoint at least is needed; found none.")
    return tols, named


def _name(adjoint: Any) -> str:
    if isinstance(adjoint, str):
        return adjoint
    classes = {kind: name for name, kind in ADJOINTS.items()}
    return classes.get(type(adjoint).__name__, type(adjoint).__name__)


def _compiled(flow: Flow, adjoint: Any, mean: Any, x: Any, weights: Any, like: float) -> tuple:
    """The gradient as a compiled program of `(x, weights, tolerance)`, seconds, and bytes."""
    through = flow.numerics.through(adjoint)
    reverse = capable(through, "reverse")

    def gradient(x: Any, theta: Any, tol: Any) -> Any:
        moved = flow.using(through.at(tol))
        J = lambda a, c: mean(jax.vmap(moved.step, in_axes=(0, None))(a, c))
        return (jax.grad if reverse else jax.jacfwd)(J, argnums=(0, 1))(x, theta)

    dtype = jnp.result_type(*jax.tree.leaves(x))
    clock = time.perf_counter()
    program = jax.jit(gradient).lower(x, weights, jnp.asarray(like, dtype)).compile()
    seconds = time.perf_counter() - clock
    about = program.memory_analysis()
    return program, seconds, int(getattr(about, "temp_size_in_bytes", 0))


def _timed(run: Any, arguments: tuple, repeats: int) -> tuple[Array | None, float, str]:
    try:
        found = jax.block_until_ready(run(*arguments))
    except RuntimeError as error:  # a backward solve that fails raises inside the compiled program
        words = "out of steps" if "maximum number of solver steps" in str(error) else "failed"
        return None, float("nan"), f"backward solve {words}"
    seconds = []
    for _ in range(repeats):
        clock = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        seconds.append(time.perf_counter() - clock)
    flat = ravel_pytree(found)[0]
    note = "" if bool(jnp.all(jnp.isfinite(flat))) else "not finite: the solve failed"
    return flat, float(np.median(seconds)), note


def _relative(found: Array | None, truth: Array) -> float:
    if found is None:
        return float("nan")
    return float(jnp.linalg.norm(found - truth) / jnp.linalg.norm(truth))
