"""PyTorch's backward passes by the same table: `G r = T r` at every place, where the program runs it."""

import subprocess
import sys

import numpy as np
import pytest

import hjcontrol as hj
from tests.verification.torch_rules import normal, rule

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")
Function, nn = torch.autograd.Function, torch.nn
DTYPES = [torch.float64, torch.float32, torch.bfloat16]

pytestmark = pytest.mark.any_precision  # nothing here is JAX's


def tanh(factor=1.0, name="Tanh"):
    return rule(name, torch.tanh, lambda g, x: factor * (1 - torch.tanh(x) ** 2) * g)


def affine(bias=1.0):
    pull = lambda g, x, w, b: (g @ w, g.T @ x, bias * g.sum(0))
    return rule("Affine", lambda x, w, b: x @ w.T + b, pull)


def sine(factor=1.0):
    push = lambda x: torch.from_numpy(np.sin(x.numpy()))
    return rule("Sine", push, lambda g, x: factor * torch.cos(x) * g)


class Net(nn.Module):
    """Layers of `affine`, each followed by a rule, and a head that may be zero."""

    def __init__(self, *acts, bias=1.0, head=1.0):
        super().__init__()
        self.weight = nn.ParameterList(normal(8, 8, seed=k) / 3 for k, _ in enumerate(acts))
        self.bias = nn.ParameterList(normal(8, seed=k) for k, _ in enumerate(acts))
        self.acts, self.head, self.affine = acts, head, affine(bias)

    def forward(self, x):
        for w, b, act in zip(self.weight, self.bias, self.acts, strict=True):
            x = act.apply(self.affine.apply(x, w, b))
        return (self.head * x**2).sum()


def line_of(text):
    """The number of the only line of this file that holds `text`."""
    with open(__file__) as file:
        found = [k for k, line in enumerate(file, 1) if text in line and "line_of" not in line]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_right_module_is_exact(dtype):
    found = hj.verify_torch(Net(tanh(), tanh()).to(dtype), normal(16, 8, dtype=dtype))
    assert found.verdict == "exact"
    assert found
    assert {row.rule for row in found.rows} == {"Tanh", "Affine"}
    assert found.problem["places"] == 4
    assert len(found.gradient) == 4
    eps = torch.finfo(torch.float64 if dtype == torch.bfloat16 else dtype).eps
    assert all(row.gap <= 16 * eps and row.reach > 0 for row in found.rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_percent_is_refuted_at_the_users_line(dtype):
    net = Net(tanh(), tanh(1.02 if dtype == torch.bfloat16 else 1.01, "Bad")).to(dtype)
    found = hj.verify_torch(net, normal(16, 8, dtype=dtype))
    assert found.verdict == "refuted"
    assert not found
    assert {row.rule for row in found.rows if row.verdict == "refuted"} == {"Bad"}
    worst = found.worst
    assert worst.file == __file__
    assert worst.line == line_of("act.apply(self" + ".affine")
    assert worst.function == "Net.forward"
    assert 0.009 < worst.gap < 0.021
    with pytest.raises(hj.VerificationError, match="Bad"):
        found.raise_for_verdict()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_zeroed_bias_is_refuted_by_name(dtype):
    found = hj.verify_torch(Net(tanh(), bias=0.0).to(dtype), normal(16, 8, dtype=dtype))
    wrong = [row for row in found.rows if row.verdict == "refuted"]
    assert [(row.rule, row.argument, row.parameter) for row in wrong] == [("Affine", 2, "bias.0")]


def test_a_zero_head_hides_no_rule():
    found = hj.verify_torch(Net(tanh(1.01, "Bad"), head=0.0), normal(16, 8))
    assert found.verdict == "refuted"
    assert found.worst.rule == "Bad"
    assert found.worst.reach == 0
    assert all(not torch.any(g) for g in found.gradient.values())
    assert hj.verify_torch(Net(tanh(), head=0.0), normal(16, 8)).verdict == "exact"


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_a_numpy_body_is_consistent_at_best(dtype):
    x = normal(16, 8, dtype=dtype)
    right = hj.verify_torch(lambda x: sine().apply(x).sum(), x)
    assert right.verdict == "consistent"
    assert right
    assert right.worst.gap < 1e-11
    wrong = hj.verify_torch(lambda x: sine(1.001).apply(x).sum(), x)
    assert wrong.verdict == "refuted"
    assert wrong.worst.index is not None


def custom_op(name, factor):
    @torch.library.custom_op(f"hjcontrol_tests::{name}", mutates_args=())
    def cube(x: torch.Tensor, k: float) -> torch.Tensor:
        return k * x**3

    def keep(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.k = inputs[1]

    pull = lambda ctx, g: (factor * 3 * ctx.k * ctx.saved_tensors[0] ** 2 * g, None)
    cube.register_autograd(pull, setup_context=keep)
    return cube


def test_a_custom_operator():
    cube = custom_op("cube", 1.0)
    right = hj.verify_torch(lambda x: cube(x, 2.0).sum(), normal(16, 8))
    assert right.verdict == "consistent"
    assert right
    assert right.rows[0].kind == "custom_op"
    bad = custom_op("cube_wrong", 1.01)
    wrong = hj.verify_torch(lambda x: bad(x, 2.0).sum(), normal(16, 8))
    assert wrong.verdict == "refuted"
    assert wrong.worst.rule == "hjcontrol_tests_cube_wrong"
    assert wrong.worst.line == line_of("bad(x, 2" + ".0)")


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (1.01, "refuted")])
def test_setup_context_style(factor, verdict):
    class Cubic(Function):
        @staticmethod
        def forward(x):
            return x**3 + x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return factor * (3 * x * x + 1) * g

    assert hj.verify_torch(lambda x: Cubic.apply(x).sum(), normal(16, 8)).verdict == verdict


def relu(at_zero, positive=1.0, push=lambda x: torch.clamp(x, min=0)):
    slope = lambda x: torch.where(x > 0, positive, torch.where(x == 0, at_zero, 0.0))
    return rule("Relu", push, lambda g, x: slope(x) * g)


def test_kinks_and_elements_that_no_signal_enters():
    x = normal(16, 8)
    x[0, :3] = 0
    call = lambda act: hj.verify_torch(lambda x: act.apply(x).sum(), x)
    found = call(relu(0.0))
    assert found.verdict == "exact"
    assert any(row.kink for row in found.rows)
    assert call(relu(2.0)).verdict == "refuted"
    host = lambda x: torch.from_numpy(np.maximum(x.numpy(), 0))
    assert call(relu(0.0, push=host)).verdict == "consistent"
    assert call(relu(2.0, push=host)).verdict == "refuted"
    x = -x.abs() - 1
    assert call(relu(0.0, 1.5)).verdict == "untested"


def test_undefined_names_the_guilty():
    x = normal(16, 8)
    x[0, 0] = 0
    root = rule("Root", torch.sqrt, lambda g, x: g / (2 * torch.sqrt(x)))
    found = hj.verify_torch(lambda x: root.apply(tanh().apply(x).abs()).sum(), x)
    assert {row.rule: row.verdict for row in found.rows} == {"Root": "undefined", "Tanh": "exact"}
    found = hj.verify_torch(lambda x: torch.where(x > 0, torch.sqrt(x), 0).sum(), x)
    assert found.verdict == "undefined"
    assert found.worst.rule == "SqrtBackward0"
    assert found.worst.file == __file__


class Hooked(nn.Module):
    """`tanh(x W)`; a hook, which is no place, changes its gradient."""

    def __init__(self, factor):
        super().__init__()
        self.weight, self.factor = nn.Parameter(normal(8, 8) / 3), factor

    def forward(self, x):
        y = torch.tanh(x @ self.weight)
        if self.factor != 1:
            y.register_hook(lambda g: self.factor * g)
        return y


def test_the_module_table():
    net = lambda factor: nn.Sequential(nn.Linear(8, 8).double(), Hooked(factor))
    right = hj.verify_torch(net(1.0), normal(16, 8))
    assert right.verdict == "consistent"
    assert right
    assert right.worst.gap < 1e-10
    assert {row.parameter for row in right.rows} == {"1.weight", "input 0"}
    wrong = hj.verify_torch(net(1.01), normal(16, 8))
    assert {row.verdict for row in wrong.rows} == {"refuted"}
    assert wrong.worst.function == "Hooked.forward"
    assert wrong.worst.scope == "1"


def test_a_detached_mean_shows_in_the_whole():
    found = hj.verify_torch(lambda x: ((x - x.mean().detach()) ** 4).sum(), normal(16, 8))
    assert found.verdict == "detached"
    assert "test_torch.py" in found.worst.reason
    found.raise_for_verdict(allow=("detached",))
    shifted = lambda x: (torch.softmax(x - x.max().detach(), -1) ** 2).sum()
    assert hj.verify_torch(shifted, normal(16, 8)).verdict == "no custom rule"


def test_straight_through_is_declared():
    step = rule("Step", torch.round, lambda g, x: g)
    f = lambda x: (step.apply(x) ** 2).sum()
    found = hj.verify_torch(f, normal(16, 8))
    assert found.verdict == "refuted"
    assert "straight-through" in found.worst.reason
    for way in (step, "Step", f"test_torch.py:{found.worst.line}"):
        assert hj.verify_torch(f, normal(16, 8), deliberate=(way,)).verdict == "deliberate"


@pytest.mark.parametrize("scale", [1e-310, 1e-165, 1e190])
def test_the_scale_of_the_costate_is_no_matter(scale):
    call = lambda act: hj.verify_torch(lambda x: scale * act.apply(x).sum(), normal(16, 8))
    assert call(tanh()).verdict == "exact"
    assert call(tanh(1.01)).verdict == "refuted"


def test_one_channel_in_many_and_two_arguments_that_are_one():
    def spoilt(g, x):
        return torch.where(torch.arange(4096) == 77, 1.01, 1.0) * g

    weight = torch.where(torch.arange(4096) == 77, 1e-7, 1.0)
    copy = rule("Copy", lambda x: x * 1.0, spoilt)
    found = hj.verify_torch(lambda x: (weight * copy.apply(x)).sum(), normal(4096))
    assert found.verdict == "refuted"
    assert found.worst.index == (77,)
    twice = rule("Product", lambda a, b: a * b, lambda g, a, b: (2 * b * g, None))
    f = lambda other: lambda x: twice.apply(x, other(x)).sum()
    assert hj.verify_torch(f(lambda x: x), normal(16, 8)).verdict == "exact"
    found = hj.verify_torch(f(lambda x: x * 1), normal(16, 8))
    assert found.verdict == "refuted"


def test_complex_numbers_by_pytorchs_convention():
    cube = lambda pull: rule("Cube", lambda z: z * z * z, pull)
    z = torch.complex(normal(16, 8), normal(16, 8, seed=1))
    call = lambda act: hj.verify_torch(lambda z: act.apply(z).abs().sum(), z).verdict
    assert call(cube(lambda g, z: g * (3 * z * z).conj())) == "exact"
    assert call(cube(lambda g, z: g * 3 * z * z)) == "refuted"


FORMULAS = {  # a body, and its derivative by other algebra
    "softplus": (
        lambda x: torch.log(1 + torch.exp(x)),
        lambda g, x: g * torch.exp(x) / (1 + torch.exp(x)),
    ),
    "silu": (
        lambda x: x * torch.sigmoid(x),
        lambda g, x: g * (1 + torch.exp(-x) + x * torch.exp(-x)) / (1 + torch.exp(-x)) ** 2,
    ),
    "softmax": (
        lambda x: torch.exp(x) / torch.exp(x).sum(-1, keepdim=True),
        lambda g, x: (y := torch.softmax(x, -1)) * (g - (g * y).sum(-1, keepdim=True)),
    ),
    "normalised": (
        lambda x: x / torch.sqrt((x * x).sum(-1, keepdim=True)),
        lambda g, x: (
            (g - (y := nn.functional.normalize(x)) * (g * y).sum(-1, keepdim=True))
            / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        ),
    ),
    "centred": (
        lambda x: ((c := 1000 + x) - c.mean(-1, keepdim=True)) ** 2,
        lambda g, x: (
            (h := 2 * g * ((c := 1000 + x) - c.mean(-1, keepdim=True))) - h.mean(-1, keepdim=True)
        ),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_other_algebra_is_roundoff_and_three_thousandths_are_not(name, dtype):
    forward, backward = FORMULAS[name]
    call = lambda pull: hj.verify_torch(
        lambda x: rule(name, forward, pull).apply(x).sum(), normal(16, 8, dtype=dtype)
    )
    assert call(backward).verdict == "exact"
    assert call(lambda g, x: 1.003 * backward(g, x)).verdict == "refuted"


def test_random_draws_and_writing_in_place():
    class Dropout(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mask = 2.0 * (torch.rand_like(x) > 0.5)
            ctx.mark_dirty(x)
            return x.mul_(ctx.mask)

        @staticmethod
        def backward(ctx, g):
            return g * ctx.mask

    assert hj.verify_torch(lambda x: Dropout.apply(x).sum(), normal(16, 8)).verdict == "exact"


def test_a_wrong_rule_inside_a_rule_is_named_too():
    bad = tanh(1.01, "Inner")

    def pull(g, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(2 * bad.apply(x), x, g)[0]

    outer = rule("Outer", lambda x: 2 * bad.apply(x), pull)
    found = hj.verify_torch(lambda x: outer.apply(x).sum(), normal(16, 8))
    assert {r.rule for r in found.rows if r.verdict == "refuted"} == {"Outer", "Inner"}


def test_the_module_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).double()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = hj.verify_torch(net, normal(16, 8))
    assert found.verdict == "no custom rule"
    assert "agrees" in found.notes[-1]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and not p._backward_hooks for p in net.parameters())
    with pytest.raises(RuntimeError, match="shapes"):
        hj.verify_torch(net, normal(16, 7))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("args", "settings", "error", "words"),
    [
        ((3, normal(2)), {}, TypeError, "module_or_fn"),
        ((torch.sum, torch.arange(3)), {}, ValueError, "nothing to differentiate.*int64"),
        ((lambda x: x.detach(), normal(2)), {}, ValueError, "no output requires a gradient"),
        ((torch.sum, normal(2)), {"tol": 0.0}, ValueError, "tol"),
        ((torch.sum, normal(2)), {"tol": float("nan")}, ValueError, "tol"),
        ((torch.sum, normal(2)), {"deliberate": "Tanh"}, TypeError, "deliberate"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(args, settings, error, words):
    with pytest.raises(error, match=words):
        hj.verify_torch(*args, **settings)


def test_without_pytorch_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import hjcontrol as hj\n"
        "try:\n    hj.verify_torch(print)\nexcept ImportError as error:\n    print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.count("\n") == 1
    assert "hjcontrol[torch]" in out.stdout


# ------------------------------------------------------------------ elements of very different size


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_small_elements_are_judged_by_their_own_size(dtype):
    x = torch.tensor([1e6, 1.0, 3.0], dtype=dtype, requires_grad=True)
    square = lambda slope: rule("Square", lambda x: x**2, lambda g, x: g * slope(x))
    call = lambda slope: hj.verify_torch(lambda x: square(slope).apply(x).sum(), x)
    assert call(lambda x: torch.where(x < 10, 0 * x, 2 * x)).verdict == "refuted"
    assert call(lambda x: x + x).verdict == "exact"


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_a_rule_may_round_where_the_derivative_does_not(dtype):
    x = torch.tensor([-20.0, -5, 0, 5, 12, 14, 20, 30], dtype=dtype, requires_grad=True)
    value = lambda x: 1 / (1 + torch.exp(-x))
    own = lambda x: value(x) * (1 - value(x))
    call = lambda slope: hj.verify_torch(
        lambda x: rule("Sigmoid", value, lambda g, x: g * slope(x)).apply(x).sum(), x
    )
    assert call(own).verdict == "exact"
    assert call(lambda x: torch.where(x < -10, 3.0, 1.0).to(dtype) * own(x)).verdict == "refuted"


def test_roundoff_as_large_as_the_derivative_shows_nothing():
    x = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    wave = rule("Wave", lambda x: torch.sin(1e16 * x), lambda g, x: 0 * g)
    found = hj.verify_torch(lambda x: wave.apply(x).sum(), x)
    assert found.verdict == "untested"
    assert "roundoff" in str(found)
