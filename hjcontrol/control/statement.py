"""What a problem states, checked as a whole on the shapes of one sample, before anything is computed.

weights -> states -> final state -> Phi(x_K, y), l(x_k, theta_k), r(theta_k)        each a scalar
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hjcontrol._ground.shapes import of_drawn, of_one
from hjcontrol._ground.shown import line_of
from hjcontrol.control.costs import (
    StateCost,
    WeightCost,
    check_labels,
    least_squares,
    softmax_cross_entropy,
)
from hjcontrol.control.terminal_constraint import NoArrayError
from hjcontrol.networks.given import reference_of
from hjcontrol.networks.model import Applied
from hjcontrol.networks.noisy import AbstractNoisy


def check_statement(problem: Any, inputs: Any, targets: Any) -> None:
    """Refuse a problem whose weights, targets and costs do not fit. `problem` holds all its samples, of
    which `inputs`, `targets` are one, as shapes.

    **Raises:** `ValueError`.
    """
    problem.control_set.check(of_drawn(problem.chain.init))
    weights = of_drawn(problem.init)
    whole = problem.model is not None and not isinstance(problem.model, list)
    if whole and not jax.tree.leaves(weights):
        raise ValueError(
            f"ControlProblem: nothing to train: {line_of(problem.model, 1)} has no floating array that "
            "is not held. Give its weights as floating JAX arrays."
        )
    if isinstance(problem.model, AbstractNoisy):
        _check_noisy(problem)
    given = of_one(jax.eval_shape(lambda: problem.given))
    if problem.model is not None and problem.dtype in (jnp.float16, jnp.bfloat16):
        raise ValueError(
            f"ControlProblem: `inputs` are {problem.dtype}, in which sums over samples lose digits. "
            "Give float32; `compute_dtype=jnp.bfloat16` computes the stages in bfloat16."
        )
    runs, final = jax.eval_shape(problem.chain.states, weights, inputs, given)
    check_targets(problem.terminal, problem.targets, targets, final)
    if problem.stream is not None:
        problem.stream.judge = lambda found: check_targets(problem.terminal, found, targets, final)
        for batch in (problem.stream.first, problem.stream.second):
            if batch is not None:
                problem.stream.judge(batch[1])
        problem.stream.second = None
    try:
        value = jax.eval_shape(problem.terminal_cost, final, targets)
    except Exception as error:  # the user's function: whatever it raises
        raise ValueError(
            f"ControlProblem: `terminal` {line_of(problem.terminal)} fails as a cost "
            f"{'Phi(x_K)' if targets is None else 'Phi(x_K, y)'} of one sample: {_first_line(error)}"
        ) from error
    _scalar("`terminal`", value, problem)
    if problem.terminal_constraint is not None:
        _ending(problem.terminal_constraint, final, targets)
    for theta, xs, u in zip(weights, runs, given, strict=True):
        x, th, read = of_one(xs), of_one(theta), of_one(reference_of(u))
        for cost in problem.running:
            if isinstance(cost, StateCost):
                arguments = (x, th) if cost.reads == "nothing" else (x, th, read)
                _cost(cost.state, cost.function, arguments, "state", problem)
            elif isinstance(cost, WeightCost) and jax.tree.leaves(th):
                _cost(cost.weights, cost.function, (th,), "weights", problem)


def _ending(constraint: Any, final: Any, target: Any) -> None:
    try:
        value = jax.eval_shape(constraint, final, target)
    except NoArrayError as error:
        raise ValueError(f"ControlProblem: `terminal_constraint` {error}") from None
    except Exception as error:  # the user's function: whatever it raises
        arguments = "x_K" if target is None else "x_K, y"
        raise ValueError(
            f"ControlProblem: `terminal_constraint` {line_of(constraint.function)} fails as a function "
            f"g({arguments}) of one sample: {_first_line(error)}"
        ) from error
    if value.size == 0 or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            "ControlProblem: `terminal_constraint` must give floating numbers for one sample; found "
            f"{value.dtype}[{value.size}]. (A comparison such as x == 1 is stated as x - 1.)"
        )


def _check_noisy(problem: Any) -> None:
    beside = ("forcing", "context", "references", "terminal_constraint")
    more = [name for name in beside if getattr(problem, name) is not None]
    more += ["path"] if problem.path else []
    more += (
        ["a running cost of states"]
        if any(isinstance(c, StateCost) for c in problem.running)
        else []
    )
    if more:
        raise ValueError(
            f"ControlProblem: a model with {', '.join(problem.model.names)} is trained on its outputs "
            f"and weights alone; found `{more[0]}`. {problem.model.remedy}"
        )


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def check_targets(terminal: Any, targets: Any, one: Any, final: Any) -> None:
    """Refuse what the built-in costs cannot compare with, as far as it is known. `one`: a sample's
    target, as a shape.

    **Raises:** `ValueError`.
    """
    if terminal is softmax_cross_entropy:
        shape, dtype = getattr(one, "shape", None), getattr(one, "dtype", None)
        if shape != () or not jnp.issubdtype(dtype, jnp.integer):
            raise ValueError(
                "softmax_cross_entropy: `targets` must be one whole number a sample, shape (n,); found "
                f"{dtype}, one sample {shape}. {_as_labels(shape, dtype)}"
            )
        check_labels(targets, final)
    if terminal is least_squares:
        shapes = [jax.tree.map(lambda a: a.shape, tree) for tree in (final, one)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "least_squares: a target is shaped as the final state, and nothing is broadcast; one "
                f"sample's final state is {shapes[0]}, its target {shapes[1]}.{_as_column(*shapes)}"
            )


def _as_column(state: Any, target: Any) -> str:
    """How targets become as long as the states, where an axis of one is all that differs."""
    if (state, target) == ((1,), ()):
        return " Make them a column: `targets[:, None]`."
    return " Flatten the column: `targets[:, 0]`." if (state, target) == ((), (1,)) else ""


def _as_labels(shape: Any, dtype: Any) -> str:
    """How targets become labels."""
    if shape == ():
        return "Convert them by `targets.astype(int)`."
    if shape == (1,):
        return (
            f"Flatten the column by `targets[:, 0]{'' if dtype.kind in 'iu' else '.astype(int)'}`."
        )
    return "Of one-hot rows take `targets.argmax(-1)`."


def _cost(call: Callable, function: Any, arguments: tuple, of: str, problem: Any) -> None:
    try:
        value = jax.eval_shape(call, *arguments)
    except Exception as error:  # the user's function: whatever it raises
        signature = "l(x, theta)" if of == "state" else "r(theta)"
        raise ValueError(
            f"ControlProblem: `running` {line_of(function)} fails as a cost {signature} of one "
            f"{'sample' if of == 'state' else 'stage'}: {_first_line(error)}{_of_a_pair(problem)}"
        ) from error
    _scalar(f"`running` {line_of(function)}", value, problem)


def _of_a_pair(problem: Any) -> str:
    """What theta is to a cost where the model came as one pair."""
    if not isinstance(problem.model, Applied):
        return ""
    return (
        ". The model is a pair (apply, params), whose theta has its parameters as `theta.params`; stages "
        "f(x, theta) are a list, [(f, theta0)]"
    )


def _scalar(name: str, value: Any, problem: Any) -> None:
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(f"ControlProblem: {name} must give a real number; found {dtype}.")
    constant = getattr(value, "weak_type", False)  # a Python number
    if dtype is not None and not constant and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"ControlProblem: {name} must give a floating number; found {dtype}, which has no slope. "
            "Count errors after training, and train on a cost that changes with its input."
        )
    if getattr(value, "shape", None) != ():
        shaped = hasattr(value, "shape")
        found = f"shape {value.shape}" if shaped else f"a {type(value).__name__}"
        raise ValueError(
            f"ControlProblem: {name} must give a scalar for one sample; found {found} "
            f"({problem.num_samples} samples)."
        )
