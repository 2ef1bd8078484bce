"""A model of any library as stages, and back: what came in is what goes out, with other weights.

    model  ->  stages, one a layer where the model says what its layers are, or else one of the whole
    model'  <- the same kind, from the weights of each stage

a list            its pieces, each split in turn      eqx.nn.Sequential, eqx.nn.MLP   their layers
an eqx.Module     one stage                           a flax NNX module               one stage
(apply, params)   one stage, `apply(params, x)`: flax linen (only "params" of its variables is trained),
                  or haiku, `apply(params, rng, x)` with no `rng`
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.interned import interned
from hjcontrol._ground.shown import line_of
from hjcontrol.networks.casts import FromIntegers, bare, rounded
from hjcontrol.networks.chain import Chain, Tied, Weights
from hjcontrol.networks.held import weights_of
from hjcontrol.networks.mistaken import WANTED, arguments, check_form
from hjcontrol.networks.noisy import AbstractNoisy, noisy
from hjcontrol.networks.noisy_foreign import NoisyNNX, noisy_haiku, noisy_linen, single
from hjcontrol.networks.stage import (
    AbstractStage,
    EquinoxCell,
    FunctionStage,
    ModuleStage,
    as_stage,
)


class Layer(eqx.Module):
    """One layer of an `eqx.nn.MLP`: `activation(W x + b)`, the activation one number at a time."""

    linear: Any
    activation: Any  # a function; in a tree of what is held, a boolean

    def __call__(self, x: Array) -> Array:
        return jax.vmap(self.activation)(self.linear(x))


class Applied(eqx.Module):
    """A function of parameters and one sample, as flax linen and haiku have it."""

    params: PyTree
    apply: Callable[..., Any] = eqx.field(static=True)
    keyed: bool = eqx.field(static=True)

    def __init__(self, apply: Callable[..., Any], params: PyTree):
        self.params = jax.tree.map(lambda a: jnp.asarray(a) if eqx.is_array_like(a) else a, params)
        self.apply = interned(apply)
        self.keyed = arguments(apply)[1:2] == ["rng"]

    def __call__(self, x: Any) -> Any:
        return single(lambda x: self.apply(self.params, *((None,) if self.keyed else ()), x), x)

    @property
    def collections(self) -> PyTree[bool] | tuple:
        """`True` for arrays that are no weights: all but "params" of linen's variables."""
        params = self.params
        if not (isinstance(params, dict) and "params" in params):
            return ()
        own = {k: jax.tree.map(lambda _, k=k: k != "params", v) for k, v in params.items()}
        return eqx.tree_at(lambda m: m.params, self, own)


class Merged(eqx.Module):
    """A flax NNX module: its parameters, the rest of its state, its graph."""

    params: PyTree
    rest: PyTree
    graph: Any = eqx.field(static=True)

    def __init__(self, module: Any):
        nnx = sys.modules["flax.nnx"]
        self.graph, self.params, self.rest = nnx.split(module, nnx.Param, ...)

    def __call__(self, x: Any) -> Any:
        return single(self.module(), x)

    def module(self) -> Any:
        """The module itself, anew."""
        return sys.modules["flax.nnx"].merge(self.graph, self.params, self.rest)


def is_nnx(model: Any) -> bool:
    """Whether a model is a flax NNX module; flax is asked only if the user has imported it."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(model, nnx.Module)


def _merged(module: Any) -> Merged | NoisyNNX:
    """A flax NNX module, with noise if a part of it is in training mode."""
    nnx, names = sys.modules["flax.nnx"], {}
    for _, part in nnx.iter_modules(module):
        drops = isinstance(part, nnx.Dropout) and not part.deterministic and part.rate > 0
        if drops or (isinstance(part, nnx.BatchNorm) and not part.use_running_average):
            names[type(part).__name__] = None
    return NoisyNNX(module, tuple(names)) if names else Merged(module)


def read(model: Any, one: Any = None) -> Any:
    """A model of another library as an `eqx.Module`, a tuple of pieces as a list, all else as it is.
    `one`: a sample, as a shape; without one, noise is looked for in equinox and NNX models alone.

    **Raises:** `ValueError` for a pair that is a step and its weights, which belongs into a list; or what
    is no model.
    """
    check_form(model)
    if is_nnx(model):
        return _merged(model)
    if _is_applied(model[:2] if isinstance(model, tuple) and len(model) == 3 else None):
        state = model[2]
        if arguments(model[0])[2:3] == ["rng"] and isinstance(state, dict):
            return noisy_haiku(model[0], model[1], state, one)
    if isinstance(model, tuple) and len(model) == 3 and isinstance(model[2], str):
        raise ValueError(
            "ControlProblem: a list of stages is needed; found one stage, the triple (function, weights, "
            f"{model[2]!r}). A list of one is [(f, theta0, {model[2]!r})]."
        )
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[1], eqx.nn.State):
        return noisy(*model)
    if _is_applied(model):
        apply, params = model[0], model[1]
        _no_step(apply, params, one)
        found = noisy_linen(apply, params, one)
        if found is None and arguments(apply)[1:2] == ["rng"]:
            found = noisy_haiku(apply, params, None, one)
        return Applied(apply, params) if found is None else found
    if isinstance(model, (list, eqx.Module)) and not isinstance(model, AbstractStage):
        found = noisy(model)
        if found is not None:
            return found
    return list(model) if isinstance(model, tuple) else model


def stages_of(
    model: Any, frozen: Any = (), compute_dtype: Any = None, whole: tuple[bool, ...] = ()
) -> list[Any]:
    """The stages of a model that `read` gave, in order of depth.

    **Arguments:** `frozen`: what is held, as `ModuleStage` takes it, of the whole model; `compute_dtype`:
    as of `ControlProblem`; `whole`: which leaves of the inputs are whole numbers, held as floating ones.

    **Raises:** `ValueError` for a model that is none, whose weights are half precision, or which needs a
    key or a state.
    """
    if compute_dtype is not None and isinstance(model, AbstractNoisy):
        raise ValueError(
            "ControlProblem: `compute_dtype` is for models without noise; found "
            f"{', '.join(model.names)}. "
            "Let the model's own layers compute in that precision."
        )
    if isinstance(model, type) or not (callable(model) or isinstance(model, (list, eqx.Module))):
        found = shown(model) if isinstance(model, type) else type(model).__name__
        raise ValueError(f"{WANTED} {found}.")
    held = _held(model, frozen)
    stages = _stages(model, held)
    for k, stage in enumerate(stages):
        initial = getattr(_own(stage), "initial", ())
        for leaf in jax.tree.leaves(initial):
            if leaf.dtype in (jnp.float16, jnp.bfloat16):
                raise ValueError(
                    f"ControlProblem: weights must be float32 or float64; stage {k} has {leaf.dtype}. "
                    "Convert the model's arrays, for a step of half precision rounds small updates away; "
                    "`compute_dtype=jnp.bfloat16` computes in bfloat16 with float32 weights."
                )
    stages = rounded(stages, compute_dtype)
    return [FromIntegers(as_stage(stages[0]), whole), *stages[1:]] if whole else stages


def form_of(model: Any) -> Any:
    """What `trained` needs of a model: of a list's pairs `(step, theta)` nothing, for a stage has both.
    A problem of a thousand stages then holds no thousand arrays beside its weights."""
    pair = lambda piece: isinstance(piece, tuple) and bool(jax.tree.leaves(piece[1:2]))
    if not isinstance(model, list):
        return model
    return [None if pair(piece) else form_of(piece) for piece in model]


def trained(model: Any, chain: Chain, weights: Weights) -> Any:
    """The model of this form with these weights: of the kind that came in.

    A stage of this library has no weights in it: it comes back as a piece that has, `(step, theta)`.
    """
    pairs = iter(zip((chain[k] for k in range(len(chain))), chain.unstack(weights), strict=True))
    return _assembled(model, pairs)


def in_layers(model: Any) -> bool:
    """Whether a model, or every piece of a list, is another library's: it has its weights in it, and who
    sees them means them as they are there, not stacked over stages."""
    if isinstance(model, list):
        return bool(model) and all(map(in_layers, model))
    model = _own(model)
    return model is not None and (
        isinstance(model, ModuleStage) or not isinstance(model, AbstractStage)
    )


def draws(stage: AbstractStage) -> bool:
    """Whether `init` makes anything of its key: a model that came with weights does not."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    jaxpr = jax.make_jaxpr(stage.init)(key).jaxpr
    return any(v is jaxpr.invars[0] for eqn in jaxpr.eqns for v in eqn.invars)


def _own(piece: Any) -> Any:
    return piece.stage if isinstance(piece, Tied) else piece


def _is_applied(model: Any) -> bool:
    if not (isinstance(model, tuple) and len(model) == 2 and callable(model[0])):
        return False
    params = model[1]
    whole = isinstance(params, (eqx.Module, str)) or callable(params)
    return not whole and all(eqx.is_array_like(a) for a in jax.tree.leaves(params))


def _no_step(apply: Callable[..., Any], params: PyTree, one: Any) -> None:
    """A pair whose function takes the sample first is a stage, not a model: as `apply(params, x)` it
    would fail far from here, or compute something else where both orders can be computed."""
    names = arguments(apply)
    if one is None or len(names) != 2:
        return
    first = names[0] in ("x", "state")
    if not first and _computes(Applied(apply, params), one):
        return
    if _computes(lambda x, theta: single(lambda x: apply(x, theta), x), one, params):
        why = f"whose first argument is {names[0]!r}" if first else "which fails so"
        raise ValueError(
            "ControlProblem: a pair is a whole model, called as apply(params, x); found the function "
            f"{line_of(apply)}({', '.join(names)}), {why}, and which takes (x, theta). A list of one "
            "stage is [(f, theta0)], and of K equal ones [(f, theta0)] * K."
        )


def _computes(call: Callable[..., Any], *arguments: Any) -> bool:
    try:
        jax.eval_shape(call, *arguments)
    except Exception:  # the user's function: whatever it raises
        return False
    return True


def _held(model: Any, frozen: Any) -> Any:
    """`True` for what is held, shaped like the model; `None` where each piece decides alone."""
    if isinstance(frozen, (tuple, list)) and not frozen:
        return None
    plain = lambda m: callable(m) and not isinstance(m, (eqx.Module, tuple))
    if isinstance(model, list) and not all(isinstance(m, eqx.Module) or plain(m) for m in model):
        raise ValueError(
            "ControlProblem: `frozen` says what is held of a model, or of a list of modules; found "
            "other pieces in the list. Hold arrays by hj.networks.ModuleStage(module, frozen=...)."
        )
    return jax.tree.map(lambda weight: not weight, weights_of(model, frozen, ()))


def _split(model: Any) -> Sequence[Any] | None:
    """The layers of a model that says what they are, of a model or of the tree of what is held."""
    if isinstance(model, list):
        return model
    if type(model) is eqx.nn.Sequential:
        return model.layers
    if type(model) is eqx.nn.MLP and _plain(model):
        return _mlp_layers(model)
    return None


def _plain(mlp: eqx.nn.MLP) -> bool:
    """Whether its layers are plain ones: no scan inside, vectors in and out, nothing learnt but them."""
    learnt = jax.tree.leaves(eqx.filter((mlp.activation, mlp.final_activation), eqx.is_array))
    return (
        not mlp.scan
        and mlp.depth > 0
        and "scalar" not in (mlp.in_size, mlp.out_size)
        and not learnt
        and callable(mlp.activation)
    )


def _stages(model: Any, held: Any) -> list[Any]:
    layers = _split(model)
    if layers is None:
        if isinstance(model, (Tied, AbstractStage)):
            return [model]
        extra = model.collections if isinstance(model, Applied) else ()
        if isinstance(model, AbstractNoisy) and model.state is not None:
            extra = _but(model, lambda m: m.state)
        if isinstance(model, Merged):
            extra = _but(model, lambda m: m.rest)
        if held is not None and extra != ():
            extra = jax.tree.map(lambda a, b: bool(a or b), held, _full(extra, model))
        elif held is not None:
            extra = held
        bare = extra == () or not isinstance(model, eqx.Module)  # a function holds nothing
        return [as_stage(model) if bare else ModuleStage(model, frozen=extra)]
    shares = [None] * len(layers) if held is None else _shares(model, held)
    return [s for part, of in zip(layers, shares, strict=True) for s in _stages(part, of)]


def _but(model: Any, part: Callable[[Any], Any]) -> Any:
    """`True` for one part of a model."""
    nothing = jax.tree.map(lambda _: False, model)
    return eqx.tree_at(part, nothing, jax.tree.map(lambda _: True, part(model)))


def _mlp_layers(mlp: Any) -> list[Any]:
    return [
        Layer(linear, mlp.activation if k < len(mlp.layers) - 1 else mlp.final_activation)
        for k, linear in enumerate(mlp.layers)
    ]


def _full(prefix: Any, model: Any) -> Any:
    """A tree of booleans that stands for subtrees, leaf by leaf."""
    return jax.tree.map(lambda p, m: jax.tree.map(lambda _: p, m), prefix, model)


def _shares(model: Any, held: Any) -> list[Any]:
    """What is held of each layer."""
    if type(model) is eqx.nn.MLP:
        return _mlp_layers(held)
    return list(held.layers if type(model) is eqx.nn.Sequential else held)


def _assembled(model: Any, pairs: Iterator[tuple[AbstractStage, Any]]) -> Any:
    layers = _split(model)
    if layers is None:
        stage, theta = next(pairs)
        if isinstance(model, Tied):
            for _ in range(model.times - 1):
                next(pairs)
            return Tied(_rebuilt(model.stage, stage, theta), model.times)
        return _rebuilt(model, stage, theta)
    new = [_assembled(part, pairs) for part in layers]
    if type(model) is eqx.nn.MLP:
        return eqx.tree_at(lambda m: m.layers, model, tuple(layer.linear for layer in new))
    if type(model) is eqx.nn.Sequential:
        return eqx.nn.Sequential(new)
    return new


def _rebuilt(piece: Any, stage: AbstractStage, theta: Any) -> Any:
    """One piece with its weights."""
    stage = bare(stage)
    if not jax.tree.leaves(theta):
        return piece
    if isinstance(piece, ModuleStage):
        return eqx.tree_at(lambda s: s.initial, stage, theta)
    if isinstance(stage, ModuleStage):
        module = eqx.combine(theta, stage.rest)
        if isinstance(module, Applied):
            return (module.apply, module.params)
        if isinstance(module, AbstractNoisy):
            return module.came_in()
        if isinstance(module, EquinoxCell):
            return module.cell
        return module.module() if isinstance(module, Merged) else module
    function = stage.function if isinstance(stage, FunctionStage) else stage.step
    return (function, theta) if stage.reads == "nothing" else (function, theta, stage.reads)
