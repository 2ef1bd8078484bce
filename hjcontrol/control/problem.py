r"""Training as an optimal control problem over an ensemble of samples.

    minimise  J(theta) = (1/n) sum_i [ Phi(x_K^i, y^i) + sum_k l(x_k^i, theta_k) ] + sum_k r(theta_k)
    subject to  x_{k+1}^i = F_k(x_k^i, theta_k, u_k^i),   x_0^i, u^i given,   theta_k in Theta
                g(x_K^i, y^i) = 0 or <= 0, if stated

Stages tied in time share one theta: r counts it once, and dJ/dtheta = sum of their dH_k/dtheta. What is
given besides x_0 (an input sequence, a mask) is no state: it has no costate, and is not stored at every
depth. The sample axis leads every ensemble array, and nothing but the mean crosses it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

import hjcontrol.control.ensemble as data
import hjcontrol.control.objective as sums
from hjcontrol._ground.arguments import admits, places
from hjcontrol._ground.interned import all_interned, interned
from hjcontrol._ground.meshes import automatic, check_devices
from hjcontrol._ground.shapes import of_one
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import Tree, TreeLike
from hjcontrol.control.chunks import checked_chunk, chunk_of
from hjcontrol.control.control_sets import AbstractControlSet, Free
from hjcontrol.control.costs import AbstractRunningCost, as_costs
from hjcontrol.control.path_checks import check_path, listed, on_samples
from hjcontrol.control.path_constraints import AbstractPathConstraint, Budget
from hjcontrol.control.references import References, gathered, referenced
from hjcontrol.control.statement import check_statement
from hjcontrol.control.streams import Stream, came_in, held
from hjcontrol.control.terminal_constraint import TerminalConstraint
from hjcontrol.control.trajectory import Trajectory, swapped
from hjcontrol.networks import Chain, Weights
from hjcontrol.networks.given import mapped, reference_of
from hjcontrol.networks.grouping import check_given
from hjcontrol.networks.model import form_of, read, stages_of


@admits()
class ControlProblem(Shown):
    """An ensemble, its dynamics and its costs. Immutable; holds no algorithm and no weights.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> stages = [hj.networks.Residual(hj.networks.Dense(1, 1), 0.5)] * 3
        >>> problem = hj.ControlProblem(
        ...     stages, x, jnp.sin(x), terminal=hj.least_squares, running=hj.Ridge(0.1)
        ... )
        >>> weights = problem.init(jax.random.key(0))
        >>> problem.num_samples, problem.rollout(weights).final.shape
        (2, (2, 1))
    """

    chain: Chain
    inputs: Tree  # `None` of a stream
    targets: Tree
    terminal: Callable[..., Float[Array, ""]]
    running: tuple[AbstractRunningCost, ...]
    control_set: AbstractControlSet
    forcing: Tree
    context: Tree
    terminal_constraint: TerminalConstraint | None
    references: References | None
    path: tuple[AbstractPathConstraint | Budget, ...]
    model: Any  # the form of what came in, for `Solution.model`; `None` for a Chain
    chunk: int | None = eqx.field(static=True)
    stream: Stream | None = eqx.field(static=True)  # then there are no inputs and targets

    keeps_its_axes = True  # of a mesh: see `_ground.meshes`

    def __init__(
        self,
        stages: Any,
        inputs: Any,
        targets: Any = None,
        *,
        terminal: Callable[..., Float[Array, ""]],
        running: AbstractRunningCost | Callable[..., Any] | Sequence[Any] = (),
        control_set: AbstractControlSet | None = None,
        forcing: TreeLike | None = None,
        context: TreeLike | None = None,
        terminal_constraint: TerminalConstraint | None = None,
        references: TreeLike | None = None,
        path: AbstractPathConstraint | Budget | Sequence[Any] | None = None,
        frozen: Any = (),
        chunk: int | None = None,
        compute_dtype: Any = None,
    ):
        """**Arguments:**

        - `stages`: stages, modules or functions in order of depth, stated for one sample; or a whole
          model: an `eqx.Module`, a pair `(apply, params)` of flax linen or haiku, a flax NNX module. A
          model that came with weights starts from them.
        - `inputs`: initial states `x_0`, every leaf `(n, ...)`, floating; of a model whole numbers too
          (tokens), which are held as floating ones and have no costate. Or batches, for `Gradient`: a
          loader or a generator function of pairs (inputs, targets); or memory maps (`np.memmap`).
        - `targets`: what the terminal cost compares with, every leaf `(n, ...)`, or `None`; floating ones
          take the inputs' dtype.
        - `terminal`: `Phi(x_K, y)` of one sample; `Phi(x_K)` when there are no targets.
        - `running`: `Ridge`, `StateCost`, `WeightCost`, `Smoothing`, a function `l(x, theta)`,
          `l(x, theta, r)` with the stage's reference, or `l(x, theta, k, y)` with the stage's number and
          the sample's target; or several.
        - `control_set`: `Free()` (default), or another of `hjcontrol.control`.
        - `forcing`: input sequences, every leaf `(n, steps, ...)`, one step for each stage that reads
          it; or a list of `n` sequences of one length.
        - `context`: what stages read at every depth alike (a mask), every leaf `(n, ...)`.
        - `terminal_constraint`: `TerminalConstraint(g)` on every final state.
        - `references`: what costs and constraints read at stage k, every leaf `(n, K, ...)`, or
          `(1, K, ...)` for all samples alike; with K + 1 entries the last one is read at x_K.
        - `path`: constraints along depth: `PathConstraint`, `StateBox`, `StateBall`, `Budget`; one or
          several.
        - `frozen`: which arrays of a model are held, as `hj.networks.ModuleStage` takes it: names of
          fields, a tree of booleans shaped like the model, or a function of a leaf.
        - `chunk`: samples whose states are held at a time, of sums over samples; all without it.
        - `compute_dtype`: of every stage's step, such as `jnp.bfloat16`; all else keeps its dtype.

        **Raises:** `ValueError` for empty, ragged or non-floating inputs, targets of another length,
        sequences that differ in length or do not fit the stages, a stage that does not accept its state,
        a control set that does not fit the weights, a mask that hides every key, or a terminal cost that
        is not a scalar.
        """
        beside = {"forcing": forcing, "context": context, "references": references, "path": path}
        self.stream, inputs, targets = came_in(inputs, targets, terminal, beside)
        forcing = data.sequences(forcing)
        context = data.as_arrays("context", data.arrays(context))
        inputs, targets, forcing, context, references = automatic(
            (inputs, targets, forcing, context, references)
        )
        check_devices("ControlProblem", inputs=inputs, targets=targets, forcing=forcing)
        chained = isinstance(stages, Chain)
        model = automatic(None if chained else all_interned(read(stages, of_one(inputs))))
        self.model = form_of(model)
        inputs, whole = data.tokens(inputs, stages)
        ensemble = {"inputs": inputs, "targets": targets, "forcing": forcing, "context": context}
        n = data.samples(ensemble)
        one = {name: of_one(tree) for name, tree in ensemble.items()}
        given = (one["forcing"], one["context"])
        if chained:
            data.whole_chain(frozen=frozen, compute_dtype=compute_dtype)
            check_given([run.stage for run in stages.runs for _ in range(run.length)], *given)
        else:
            stages = Chain(stages_of(model, frozen, compute_dtype, whole), one["inputs"], *given)
        self.chain = stages
        self.inputs, self.terminal = inputs, interned(terminal)
        self.targets = targets = data.in_precision(targets, self.dtype)
        self.forcing, self.context = forcing, context
        self.terminal_constraint = terminal_constraint
        seen = self.chain.given(forcing, context, samples=True)
        for run, u in zip(self.chain.runs, seen, strict=True):
            run.stage.check(u)
        self.running = as_costs(running)
        self.path = () if path is None else listed(path)
        wants = {c.reads for c in (*self.running, *on_samples(self.path))}
        shape = (n, len(self.chain), self.dtype)
        self.references = gathered("ControlProblem", references, wants, targets, shape)
        self.chunk = checked_chunk("ControlProblem", self, chunk)
        self.control_set = Free() if control_set is None else control_set
        check_statement(self, one["inputs"], of_one(targets))
        if self.path:
            check_path(self)
        if self.stream is not None:
            self.inputs = self.targets = None

    @property
    def num_samples(self) -> int:
        """Size n of the ensemble."""
        if self.stream is not None and self.inputs is None:
            return self.stream.count
        return jax.tree.leaves(self.inputs)[0].shape[0]

    @property
    def dtype(self) -> Any:
        """Floating dtype of the inputs, in which everything runs."""
        return self.stream.dtype if self.stream else jnp.result_type(*jax.tree.leaves(self.inputs))

    @property
    def chunked(self) -> bool:
        """Whether J is summed up over more than one chunk of samples."""
        if self.stream is not None:  # a memory map is read in chunks, one or more
            return self.stream.rows is not None and self.chunk is not None
        return self.chunk is not None and self.chunk < self.num_samples

    @property
    def first_chunk(self) -> "ControlProblem":
        """The problem on its first chunk of samples; itself if it has no more."""
        return chunk_of(self, 0, self.chunk or 0) if self.chunked else self

    def in_chunks(self, chunk: int | None) -> "ControlProblem":
        """The same problem, of which `chunk` samples' states are held at a time.

        **Raises:** `ValueError` for less than one, or with constraints on the states.
        """
        return data.replaced(self, chunk=checked_chunk("in_chunks", self, chunk))

    @property
    def given(self) -> tuple[PyTree[Array], ...]:
        """What each run's stages read, samples in front: a forcing `(n, length, ...)`, the context, or
        `None`; with references a `Given`, what the costs read beside it, `(n, length, ...)`."""
        read = self.chain.given(self.forcing, self.context, samples=True)
        if self.references is None:
            return read
        return self.references.beside(self.chain, read, self.num_samples)

    @property
    def given_by_depth(self) -> tuple[PyTree[Array], ...]:
        """The same for a scan over the stages of the whole ensemble: a forcing is `(length, n, ...)`."""
        return tuple(
            mapped(u, swapped if run.stage.reads == "forcing" else lambda v: v, swapped)
            for run, u in zip(self.chain.runs, self.given, strict=True)
        )

    def fold(
        self,
        body: Callable[..., tuple[Any, Any]],
        carry: Any,
        weights: Weights,
        *along: tuple[PyTree[Array], ...],
        reverse: bool = False,
    ) -> tuple[Any, tuple[PyTree[Array], ...]]:
        """Fold `body(r, carry, stage, theta, u, *slices) -> (carry, out)` over the whole ensemble's
        stages: `Chain.fold`, with the samples' leading axis in the carry, in `u` and in the slices.

        `along`: one entry a run, every leaf with the samples in front, as `Trajectory.runs` has them;
        what has the stages in front is folded by `chain.fold(..., given=problem.given_by_depth)`.

        **Returns:** the last carry, and one output a run, every leaf with the run's stages in front.
        """
        along, given = swapped(along), self.given_by_depth
        return self.chain.fold(body, carry, weights, *along, given=given, reverse=reverse)

    @admits()
    def init(self, key: Key[Array, ""]) -> Weights:
        """Weights to start from, in the inputs' dtype, inside the control set."""
        return data.drawn(self.chain, self.control_set, self.dtype, key)

    def terminal_cost(self, x: PyTree[Array], y: PyTree[Array]) -> Float[Array, ""]:
        """`Phi` of one sample."""
        return self.terminal(x) if y is None else self.terminal(x, y)

    def state_cost(
        self, x: PyTree[Array], theta: PyTree[Array], u: Any = None
    ) -> Float[Array, ""] | float:
        """`l(x_k, theta_k)` of one sample, all running costs together. `u`: what is given there."""
        read = reference_of(u)
        return sum(
            (c.state(x, theta, *(() if c.reads == "nothing" else (read,))) for c in self.running),
            0.0,
        )

    def weight_cost(self, theta: PyTree[Array]) -> Float[Array, ""] | float:
        """`r(theta_k)` of one stage, all running costs together."""
        return sum((c.weights(theta) for c in self.running), 0.0)

    @property
    def couples(self) -> bool:
        """Whether a running cost couples the weights of different stages."""
        return any(c.couples for c in self.running)

    def coupling(self, theta: PyTree[Array]) -> Float[Array, ""]:
        """`c(theta)` of one run's weights together, every leaf with its stages in front."""
        costs = (c.across(theta) for c in self.running if c.couples)
        return jnp.asarray(sum(costs, 0.0), self.dtype)

    def total_weight_cost(self, weights: Weights) -> Float[Array, ""]:
        """`sum_k r(theta_k)`, and what couples the stages of each run."""
        return sums.weight_cost(self, weights)

    def sample_cost(
        self,
        weights: Weights,
        x: PyTree[Array],
        y: PyTree[Array],
        shifts: Any = None,
        given: Any = None,
    ) -> tuple[Float[Array, ""], tuple[tuple[PyTree, ...], PyTree]]:
        """Cost of one sample and its states. `given`: its own entry of the problem's.

        `shifts`, shaped like the states, is added to each state before it is used: the derivative
        in it is the costate.
        """
        return sums.sample_cost(self, weights, x, y, shifts, given)

    def cost_along(
        self,
        weights: Weights,
        states: tuple[tuple[PyTree, ...], PyTree],
        y: PyTree[Array],
        given: tuple[PyTree, ...] | None = None,
    ) -> Float[Array, ""]:
        """Cost of one sample along given states, which need not satisfy the dynamics. `given`: its own
        entry of the problem's."""
        return sums.cost_along(self, weights, states, y, given)

    @admits()
    def objective(self, weights: Weights) -> Float[Array, ""]:
        """`J(theta)`.

        **Raises:** `ValueError` for weights of another shape.
        """
        weights = automatic(weights)
        self.chain.check_weights("objective", weights)
        return self.data_cost(weights) + self.total_weight_cost(weights)

    def data_cost(self, weights: Weights) -> Float[Array, ""]:
        """`J(theta)` without the costs of the weights alone: the mean over samples."""
        return sums.data_cost(self, weights)

    @admits()
    def rollout(self, weights: Weights) -> Trajectory:
        """States of the ensemble at every depth.

        **Raises:** `ValueError` for weights of another shape.
        """
        weights = automatic(weights)
        self.chain.check_weights("rollout", weights)
        held(self)
        states = lambda x, u: self.chain.states(weights, x, u)
        runs, final = jax.vmap(states)(self.inputs, self.given)
        return Trajectory(runs, final)

    def take(self, index: Any) -> "ControlProblem":
        """The same problem on the samples `index` (an integer array or a slice)."""
        index = places("take", index, self.num_samples)
        return data.picked(self, lambda a: a[index])

    def on(self, inputs: TreeLike, targets: TreeLike | None = None) -> "ControlProblem":
        """The same problem on other samples, `(m, ...)`: a batch, or samples held out.

        **Raises:** `ValueError` for samples shaped otherwise, or where each sample has more than inputs
        and targets.
        """
        return data.on_samples_of(self, inputs, targets)

    def placed(self, inputs: Any, targets: Any) -> "ControlProblem":
        """`on`, unchecked: for a batch that a stream has checked."""
        return data.placed(self, inputs, targets)

    @admits()
    def with_references(self, references: TreeLike) -> "ControlProblem":
        """The same problem with other references. If they have the shapes of the old ones, a solver that
        has solved the old problem compiles nothing.

        **Raises:** `ValueError` for a problem without references, or references shaped differently.
        """
        return referenced(self, references)
