r"""Is the backward pass right? One call for any JAX program, a control problem, a solution, stages.

of a program      every rule somebody wrote, where it runs:        G(x) p = T(x) p
of a chain        every stage, and routes to the whole costate:    p_k = dH_k/dx
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.meshes import off_the_mesh
from hjcontrol._ground.progress import reported
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.settings import as_usual
from hjcontrol._ground.trees import TreeLike
from hjcontrol.control import ControlProblem, Solution, Trajectory
from hjcontrol.networks import AbstractStage
from hjcontrol.networks.chain import Tied
from hjcontrol.verification.certificate import Certificate
from hjcontrol.verification.chained import verify_chain
from hjcontrol.verification.function import verify_function
from hjcontrol.verification.model import as_function

COSTATES = ("both", "random", "actual")
_OF_FUNCTIONS = {
    "argnums": None,
    "has_aux": False,
    "costate": "both",
    "order": 1,
    "every": False,
    "finer": (),
}
_OF_CHAINS = {
    "weights": None,
    "targets": None,
    "running": (),
    "forcing": None,
    "context": None,
    "routes": ("backprop", "pairing"),
    "multipliers": None,
    "second_order": False,
    "minimum": False,
    "optimality": False,
}


@renamed(tolerance="tol")
@as_usual
@off_the_mesh
def verify(
    problem: Any,
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    costate: str = "both",
    order: int = 1,
    every: bool = False,
    finer: Sequence[Callable[..., Any]] = (),
    deliberate: Sequence[Any] = (),
    weights: Any = None,
    inputs: TreeLike = None,
    targets: TreeLike = None,
    cost: Any = None,
    running: Any = (),
    forcing: TreeLike = None,
    context: TreeLike = None,
    routes: Sequence[str] = ("backprop", "pairing"),
    key: Key[Array, ""] | None = None,
    multipliers: Trajectory | None = None,
    second_order: bool = False,
    minimum: bool = False,
    optimality: bool | float = False,
    tol: float | None = None,
    progress: bool | Callable[[str], None] = False,
) -> Certificate:
    """Verify a backward pass: name each rule that is wrong, by how much, and where it stands.

    ```python
    certificate = hj.verify(loss, params, batch)      # any function that JAX can differentiate
    hj.verify(problem, weights)                       # a ControlProblem; hj.verify(solution)
    hj.verify([layer1, layer2], inputs=x, cost=loss)  # a list of stages, each of one sample
    hj.verify(model, inputs=x, cost=loss)             # one model of one sample
    ```

    **Arguments:**

    - `problem`: a function with its arguments behind it; a `ControlProblem` with weights; a `Solution`,
      whose weights, trajectory and multipliers are used; a list of stages (functions, `eqx.Module`s,
      pairs `(f, theta)`) or a model (equinox, flax NNX, a function) with `inputs` of shape `(n, ...)`
      and a scalar `cost(output)` or `cost(output, target)` of one sample.

    Of a function or a model:

    - `argnums`: which arguments are differentiated; by default every floating array, those of an
      `eqx.Module` that is the function included.
    - `has_aux`: the function returns `(value, anything)`.
    - `costate`: "both" the costate that arrives and a random one; "random": forward only, without a
      backward pass, which reaches rules in `while` loops; "actual": the costate that arrives alone.
    - `order`: 2 also compares second derivatives.
    - `every`: every equation is judged, by forward mode, not only rules somebody wrote.
    - `finer`: the same program at tighter tolerances, once or more: its gaps must shrink.
    - `deliberate`: rules that differ on purpose: `"file.py:52"`, a rule's name or the rule itself, each
      of them in the program; or decorate the rule with `hj.deliberate(reason)`.

    Of a chain of stages:

    - `weights`: as `problem.init` gives them, or a list with one entry per stage. A list of stages has
      its own.
    - `targets`, `running`, `forcing`, `context`: as in `ControlProblem`.
    - `routes`: two or more of `backprop`, `pairing` (every stage on its own), `recursion` (the whole
      costate by forward mode: a pass per coordinate), `finite_difference` (of J; float64),
      `multipliers`, `costate_equation`. The last needs a flow: it integrates `p' = -dH/dx` on its own,
      and the gap must shrink at the expected order as the flow is refined.
    - `multipliers`: costates from elsewhere, to be compared; NaN where there is none.
    - `second_order`: the smallest curvature of J, by Lanczos.
    - `minimum`: how far each stage's Hamiltonian can be lowered, a diagnostic.
    - `optimality`: every condition of optimality in one table: KKT with multipliers, transversality,
      curvature, Legendre-Clebsch, Hamiltonian minimum, constancy of H. A number is the largest
      violation that still holds; `True` means 1e-6 (float32: 1e-3), in units measured on the problem.

    Of both:

    - `key`: of the random costates. Without one they are fixed: a verdict must be reproducible, and none
      depends on it.
    - `tol`: of a function, the largest gap of a `consistent` place with which the certificate is
      true (default 1e-6); of a chain, the largest relative disagreement of two routes that counts as
      exact (by default the dtype's).

    - `progress`: `True` shows on standard error what is being done; a function is called with the words.

    **Returns:** a `Certificate`; print it. `bool(certificate)` is true if all was shown.

    **Raises:** `ValueError` or `TypeError` for a function that cannot be traced or differentiated, or
    returns nothing differentiable; for arguments that are missing, unknown, or of no use to what is
    verified; for a stage that cannot be batched or differentiated, with its name; under `jit`, `grad` or
    `vmap`. `RuntimeError` if a flow does not reach its end.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> @jax.custom_vjp
        ... def square(x):
        ...     return x**2
        >>> square.defvjp(lambda x: (x**2, x), lambda x, p: (3 * x * p,))  # should be 2 x p
        >>> hj.verify(lambda x: jnp.sum(square(x)), jnp.array([1.0, 2.0])).verdict
        'refuted'
    """
    given = {k: v for k, v in locals().items() if k in _OF_FUNCTIONS or k in _OF_CHAINS}
    _check_values((problem, args, weights, inputs, targets), costate, order, tol, progress)
    seed = _seed(key)
    if isinstance(deliberate, str) or not isinstance(deliberate, Sequence):
        deliberate = (deliberate,)
    if isinstance(problem, (ControlProblem, Solution, AbstractStage, Tied, list, tuple)):
        _refuse(given, _OF_FUNCTIONS, "a chain of stages", "a function")
        if len(args) > 1 or (args and weights is not None):
            raise TypeError(
                f"verify: a chain takes one more argument, its weights; found {len(args)} of them. "
                "Verify one problem a call."
            )
        given["weights"] = args[0] if args else weights
        with reported(progress, "verify"):
            return verify_chain(problem, given, inputs, cost, seed, key, tol, deliberate)
    _refuse(given, _OF_CHAINS, "a function", "a chain of stages", ("targets",))
    finer = (finer,) if callable(finer) else finer
    if not isinstance(finer, (list, tuple)) or not all(map(callable, finer)):
        raise ValueError(
            f"verify: `finer` must be a function or a list of functions; found {shown(finer)}."
        )
    fn, args, held = as_function(problem, args, inputs, targets, cost, argnums)
    with reported(progress, "verify"):
        return verify_function(
            fn,
            args,
            argnums=held,
            has_aux=has_aux,
            costate=costate,
            order=int(order),
            every=bool(every),
            deliberate=deliberate,
            accepted=1e-6 if tol is None else float(tol),
            seed=seed,
            finer=tuple(finer),
        )


def _refuse(given: dict, others: dict, what: str, of: str, also: Sequence[str] = ()) -> None:
    """Refuse arguments that would be ignored."""
    for name, default in others.items():
        if name not in also and not _is_default(given[name], default):
            raise TypeError(
                f"verify: `{name}` says nothing of {what}; it is an argument for {of}. Leave it out."
            )


def _is_default(value: Any, default: Any) -> bool:
    plain = isinstance(default, (str, int, tuple)) and type(value) is type(default)
    return value is default or (plain and value == default)


def _traced(leaf: Any) -> bool:
    return type(leaf).__name__.endswith("Tracer")


def _seed(key: Any) -> int:
    if key is None:
        return 0
    try:
        data = np.asarray(jax.random.key_data(key))
    except (TypeError, ValueError, AttributeError):  # a traced key has no values either
        raise ValueError(
            f"verify: `key` must be a JAX key, `jax.random.key(0)`; found {type(key).__name__}."
        ) from None
    return int(data.astype(np.uint64).sum() * 2654435761 % 2**20)


def _check_values(trees: Any, costate: Any, order: Any, tol: Any, progress: Any) -> None:
    if any(map(_traced, jax.tree.leaves(trees))):
        raise ValueError(
            "verify: call it outside `jit`, `grad` and `vmap`; found an argument that is traced. Pass "
            "the function that you would compile, and its arguments."
        )
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(trees)):
        raise TypeError(
            "verify: arguments are arrays with values, for a rule is judged at a point; found a "
            "`jax.ShapeDtypeStruct`. Pass an array of that shape, `jax.random.normal(key, shape)`."
        )
    if costate not in COSTATES:
        raise ValueError(f"verify: `costate` is one of {', '.join(COSTATES)}; found {costate!r}.")
    if order not in (1, 2) or isinstance(order, bool):
        raise ValueError(f"verify: `order` is 1 or 2; found {order!r}.")
    if not (isinstance(progress, bool) or callable(progress)):
        raise TypeError(
            f"verify: `progress` is True, False or a function of words; found {progress!r}."
        )
    _check_tolerance(tol)


def _check_tolerance(tol: Any) -> None:
    if tol is None:
        return
    try:
        value = float(tol)
    except (TypeError, ValueError):
        value = float("nan")
    if isinstance(tol, (bool, str)) or not 0 < value < np.inf:
        raise ValueError(f"verify: `tol` must be positive and finite; found {tol!r}.")
