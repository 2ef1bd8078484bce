r"""Training as an optimal control problem over an ensemble of samples.

    minimise  J(theta) = (1/n) sum_i [ Phi(x_K^i, y^i) + sum_k l(x_k^i, theta_k) ] + sum_k r(theta_k)
    subject to  x_{k+1}^i = F_k(x_k^i, theta_k),   x_0^i given,   theta_k in Theta

The sample axis leads every ensemble array, and nothing but the mean crosses it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree

from hjcontrol.control.control_sets import AbstractControlSet, Free
from hjcontrol.control.costs import AbstractRunningCost, StateCost
from hjcontrol.control.trajectory import Trajectory
from hjcontrol.networks import Chain, Weights


class ControlProblem(eqx.Module):
    """An ensemble, its dynamics and its costs. Immutable; holds no algorithm and no weights."""

    chain: Chain
    inputs: PyTree[Array]
    targets: PyTree[Array]
    terminal: Callable[..., Float[Array, ""]]
    running: tuple[AbstractRunningCost, ...]
    control_set: AbstractControlSet

    def __init__(
        self,
        stages: Sequence[Any] | Chain,
        inputs: PyTree[ArrayLike],
        targets: PyTree[ArrayLike] | None = None,
        *,
        terminal: Callable[..., Float[Array, ""]],
        running: AbstractRunningCost | Callable | Sequence[Any] = (),
        control_set: AbstractControlSet | None = None,
    ):
        """**Arguments:**

        - `stages`: stages, modules or functions in order of depth, stated for one sample.
        - `inputs`: initial states `x_0`, every leaf `(n, ...)`, floating.
        - `targets`: what the terminal cost compares with, every leaf `(n, ...)`, or `None`.
        - `terminal`: `Phi(x_K, y)` of one sample; `Phi(x_K)` when there are no targets.
        - `running`: `Ridge`, `StateCost`, `WeightCost`, a function `l(x, theta)`, or several.
        - `control_set`: `Free()` (default) or `Box(lower, upper)`.

        **Raises:** `ValueError` for empty, ragged or non-floating inputs, targets of another length,
        a stage that does not accept its state, or a terminal cost that is not a scalar.
        """
        inputs = jax.tree.map(jnp.asarray, inputs)
        targets = jax.tree.map(jnp.asarray, targets)
        n = _samples(inputs, targets)
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (inputs, targets))
        self.chain = stages if isinstance(stages, Chain) else Chain(stages, one[0])
        self.inputs, self.targets, self.terminal = inputs, targets, terminal
        costs = running if isinstance(running, Sequence) else (running,)
        self.running = tuple(
            c if isinstance(c, AbstractRunningCost) else StateCost(c) for c in costs
        )
        self.control_set = Free() if control_set is None else control_set
        weights = jax.eval_shape(self.init, jax.eval_shape(lambda: jax.random.key(0)))
        value = jax.eval_shape(
            lambda w, x, y: self.terminal_cost(self.chain(w, x), y), weights, *one
        )
        if getattr(value, "shape", None) != ():
            raise ValueError(
                "ControlProblem: `terminal` must give a scalar for one sample; found shape "
                f"{getattr(value, 'shape', type(value).__name__)} ({n} samples)."
            )

    @property
    def num_samples(self) -> int:
        """Size n of the ensemble."""
        return jax.tree.leaves(self.inputs)[0].shape[0]

    @property
    def dtype(self) -> Any:
        """Floating dtype of the inputs, in which everything runs."""
        return jnp.result_type(*jax.tree.leaves(self.inputs))

    def init(self, key: Key[Array, ""]) -> Weights:
        """Weights to start from, in the inputs' dtype, inside the control set."""
        cast = lambda a: a.astype(self.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
        return self.control_set.project(jax.tree.map(cast, self.chain.init(key)))

    def terminal_cost(self, x: PyTree[Array], y: PyTree[Array]) -> Float[Array, ""]:
        """`Phi` of one sample."""
        return self.terminal(x) if y is None else self.terminal(x, y)

    def state_cost(self, x: PyTree[Array], theta: PyTree[Array]) -> Float[Array, ""] | float:
        """`l(x_k, theta_k)` of one sample, all running costs together."""
        return sum((c.state(x, theta) for c in self.running), 0.0)

    def weight_cost(self, theta: PyTree[Array]) -> Float[Array, ""] | float:
        """`r(theta_k)` of one stage, all running costs together."""
        return sum((c.weights(theta) for c in self.running), 0.0)

    def total_weight_cost(self, weights: Weights) -> Float[Array, ""]:
        """`sum_k r(theta_k)`."""
        total = jnp.zeros((), self.dtype)
        for theta in weights:
            costs = jax.vmap(lambda th: jnp.asarray(self.weight_cost(th), self.dtype))
            total = total + jnp.sum(costs(theta)) if jax.tree.leaves(theta) else total
        return total

    def sample_cost(
        self, weights: Weights, x: PyTree[Array], y: PyTree[Array], shifts: Any = None
    ) -> tuple[Float[Array, ""], tuple[tuple[PyTree, ...], PyTree]]:
        """Cost of one sample and its states.

        `shifts`, shaped like the states, is added to each state before it is used: the derivative
        in it is the costate.
        """
        cost = jnp.zeros((), self.dtype)
        collected = []

        def body(carry: Any, stage: Any, slices: Any) -> tuple[Any, Any]:
            x, cost = carry
            theta, shift = slices
            x = x if shift is None else jax.tree.map(jnp.add, x, shift)
            return (stage.step(x, theta), cost + self.state_cost(x, theta)), x

        for r, (run, theta) in enumerate(zip(self.chain.runs, weights, strict=True)):
            shift = None if shifts is None else shifts[0][r]
            (x, cost), xs = run.scan(body, (x, cost), (theta, shift))
            collected.append(xs)
        x = x if shifts is None else jax.tree.map(jnp.add, x, shifts[1])
        return cost + self.terminal_cost(x, y), (tuple(collected), x)

    def cost_along(
        self, weights: Weights, states: tuple[tuple[PyTree, ...], PyTree], y: PyTree[Array]
    ) -> Float[Array, ""]:
        """Cost of one sample along given states, which need not satisfy the dynamics."""
        cost = self.terminal_cost(states[1], y)
        for theta, xs in zip(weights, states[0], strict=True):
            stages = jax.vmap(lambda x, th: jnp.asarray(self.state_cost(x, th), self.dtype))
            cost = cost + jnp.sum(stages(xs, theta))
        return cost

    def objective(self, weights: Weights) -> Float[Array, ""]:
        """`J(theta)`."""
        cost = lambda x, y: self.sample_cost(weights, x, y)[0]
        return jnp.mean(jax.vmap(cost)(self.inputs, self.targets)) + self.total_weight_cost(weights)

    def rollout(self, weights: Weights) -> Trajectory:
        """States of the ensemble at every depth."""
        runs, final = jax.vmap(lambda x: self.chain.states(weights, x))(self.inputs)
        return Trajectory(runs, final)

    def take(self, index: Any) -> "ControlProblem":
        """The same problem on the samples `index` (an integer array or a slice)."""
        pick = lambda tree: jax.tree.map(lambda a: a[index], tree)
        return eqx.tree_at(
            lambda p: (p.inputs, p.targets),
            self,
            (pick(self.inputs), pick(self.targets)),
            is_leaf=lambda leaf: leaf is None,
        )


def _samples(inputs: PyTree, targets: PyTree) -> int:
    leaves = jax.tree.leaves(inputs)
    if not leaves or any(a.ndim == 0 for a in leaves):
        raise ValueError("ControlProblem: `inputs` must have a leading sample axis; found none.")
    n = leaves[0].shape[0]
    if n == 0:
        raise ValueError("ControlProblem: at least one sample is needed; found none.")
    for a in leaves:
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise ValueError(
                f"ControlProblem: `inputs` must be floating (they have costates); found {a.dtype}."
            )
    for name, tree in (("inputs", inputs), ("targets", targets)):
        for a in jax.tree.leaves(tree):
            if a.ndim == 0 or a.shape[0] != n:
                raise ValueError(
                    f"ControlProblem: every leaf of `{name}` must have {n} samples in front; "
                    f"found shape {a.shape}."
                )
    return n
