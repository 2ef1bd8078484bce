"""Ordinary PyTorch programs: checkpoints, hooks, transforms, loops to a tolerance, casts inside."""

import dataclasses
import math

import pytest

import hjcontrol as hj
from tests.verification.torch_rules import normal, rule

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")
Function, nn = torch.autograd.Function, torch.nn
checkpoint = torch.utils.checkpoint.checkpoint
F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16

pytestmark = pytest.mark.any_precision  # nothing here is JAX's


def sine(factor=1.0):
    return rule("Sine", torch.sin, lambda g, x: factor * g * x.cos())


def samplewise(factor=1.0):
    """The style that transforms of `torch.func` ask for."""

    class Cubic(Function):
        generate_vmap_rule = True
        forward = staticmethod(lambda x: x**3)
        setup_context = staticmethod(lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
        backward = staticmethod(lambda ctx, g: factor * 3 * ctx.saved_tensors[0] ** 2 * g)

    return Cubic


class Scaled(nn.Module):
    """`f(x W)` of a function of the user's."""

    def __init__(self, f, dtype=F64):
        super().__init__()
        self.weight, self.f = nn.Parameter(normal(4, 4, dtype=dtype) / 2), f

    def forward(self, x):
        return (self.f(x @ self.weight) ** 2).sum()


def verdicts(program, *inputs):
    """Of a program that makes its rules with a factor: 1, and 1.01."""
    right, wrong = (hj.verify_torch(program(factor), *inputs) for factor in (1.0, 1.01))
    assert right, str(right)
    assert not wrong, str(wrong)
    return right.verdict, wrong.verdict


# ------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("again", [True, False])
def test_a_checkpoint(again):
    once = lambda factor: lambda x: checkpoint(sine(factor).apply, x, use_reentrant=again)
    given = normal(3, 4)
    assert verdicts(lambda factor: lambda x: once(factor)(2 * x).sum(), given) == (
        "exact",
        "refuted",
    )
    assert verdicts(lambda factor: Scaled(once(factor)), given)[1] == "refuted"


def test_a_checkpoint_leaves_the_gradients_that_were_there():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4, dtype=F64)

        def forward(self, x):
            return checkpoint(lambda x: sine().apply(self.inner(x)), x, use_reentrant=True).sum()

    net, x = Net(), normal(3, 4).requires_grad_()
    kept = torch.ones(4, 4, dtype=F64)
    net.inner.weight.grad = kept
    found = hj.verify_torch(net, x)
    assert found.verdict == "exact", str(found)
    assert net.inner.weight.grad is kept
    assert torch.equal(kept, torch.ones(4, 4, dtype=F64))
    assert net.inner.bias.grad is None
    net(x).backward()
    torch.testing.assert_close(found.gradient["inner.bias"], net.inner.bias.grad)


def test_a_rule_that_runs_its_own_backward_pass():
    def program(factor):
        class Again(Function):
            @staticmethod
            def forward(ctx, run, x):
                ctx.run = run
                ctx.save_for_backward(x)
                return run(x)

            @staticmethod
            def backward(ctx, g):
                x = ctx.saved_tensors[0].detach().requires_grad_()
                with torch.enable_grad():
                    y = ctx.run(x)
                torch.autograd.backward(y, factor * g)
                return None, x.grad

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Linear(4, 4, dtype=F64)

            def forward(self, x):
                return Again.apply(self.inner, x * self.inner.weight[0]).sum()

        return Net()

    assert verdicts(program, normal(3, 4))[1] == "refuted"


def test_a_rule_that_reads_its_parameters_from_a_module():
    class Twice(Function):
        factor = 1.0

        @staticmethod
        def forward(ctx, x, f, *parameters):
            ctx.f = f
            ctx.save_for_backward(x)
            with torch.no_grad():
                return x + f(x)

        @staticmethod
        def backward(ctx, g):
            x = ctx.saved_tensors[0].detach().requires_grad_()
            with torch.enable_grad():
                y = ctx.f(x)
            found = torch.autograd.grad(y, [x, *ctx.f.parameters()], g)
            return g + found[0], None, *[Twice.factor * a for a in found[1:]]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4, dtype=F64)

        def forward(self, x):
            return (Twice.apply(x, self.inner, *self.inner.parameters()) ** 2).sum()

    net, x = Net(), normal(3, 4)
    before = net.inner.weight.clone()
    right = hj.verify_torch(net, x)
    assert right, str(right)
    assert torch.equal(net.inner.weight, before)
    assert net.inner.weight.requires_grad
    Twice.factor = 1.01
    wrong = hj.verify_torch(net, x)
    assert wrong.verdict == "refuted"
    assert wrong.worst.parameter.startswith("inner.")


# ------------------------------------------------------------------ hooks


def linear_with(hook):
    net = nn.Sequential(nn.Linear(4, 4, dtype=F64), nn.Tanh(), nn.Linear(4, 2, dtype=F64))
    hook(net)
    return net


HOOKS = {
    "parameter": lambda net, f: net[0].weight.register_hook(lambda g: f * g),
    "module": lambda net, f: net[1].register_full_backward_hook(lambda m, a, b: (f * a[0],)),
    "before": lambda net, f: net[1].register_full_backward_pre_hook(lambda m, b: (f * b[0],)),
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_changes_the_gradient_is_seen(name):
    program = lambda factor: linear_with(lambda net: HOOKS[name](net, factor))
    assert verdicts(program, normal(3, 4)) == ("no custom rule", "refuted")


def test_hooks_that_no_pass_calls_are_untested():
    net = linear_with(
        lambda net: net[0].weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))
    )
    found = hj.verify_torch(net, normal(3, 4))
    assert not found
    assert "0.weight: a hook on the tensor itself is not verified" in str(found)
    x = normal(3).requires_grad_()
    assert hj.verify_torch(lambda x: x.sin().sum(), x)
    x.register_hook(lambda g: 3 * g)
    assert not hj.verify_torch(lambda x: x.sin().sum(), x)


def test_a_state_that_changes_the_gradient_is_not_passed_over():
    def program(every):
        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight, self.calls = nn.Parameter(normal(4, 4) / 2), 0

            def forward(self, x):
                self.calls += 1
                y = torch.tanh(x @ self.weight)
                if self.calls % every == 0:
                    y.register_hook(lambda g: 1.01 * g)
                return y

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = Counting()

            def forward(self, x):
                for _ in range(7):
                    x = self.layer(x)
                return (x**2).sum()

        return Net()

    assert hj.verify_torch(program(10**9), normal(3, 4))
    assert not hj.verify_torch(program(6), normal(3, 4))


def test_a_cut_inside_a_module_is_named_as_one():
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4, dtype=F64))
            self.weight = nn.Parameter(normal(4))

        def forward(self, x):
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * x.mean(0))
            return (x - self.mean) * self.weight

    found = hj.verify_torch(nn.Sequential(nn.Linear(4, 4, dtype=F64), Running()), normal(3, 4))
    assert found.verdict == "detached"
    assert "cut by no_grad at" in str(found)


# ------------------------------------------------------------------ transforms of torch.func


@pytest.mark.parametrize("take", ["grad", "vmap", "jacrev", "samples"])
def test_a_rule_inside_a_transform_is_judged_by_one_sample(take):
    ways = {
        "grad": lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
        "vmap": lambda f, x: torch.func.vmap(f)(x),
        "jacrev": lambda f, x: torch.func.jacrev(f)(x),
        "samples": lambda f, x: torch.func.vmap(torch.func.grad(lambda x: f(x).sum()))(x),
    }
    program = lambda factor: lambda x: (ways[take](samplewise(factor).apply, x) ** 2).sum()
    assert verdicts(program, normal(3, 4)) == ("exact", "refuted")


def test_samples_of_nested_transforms_are_the_programs_own():
    """Rows of `x` are of several sizes: another sample than the first, or mixed axes, are refused."""
    seen = []
    at = samplewise()

    class Seen(at):
        @staticmethod
        def forward(x):
            if not torch._C._are_functorch_transforms_active():
                seen.append(x.detach().clone())
            return x**3

    x = normal(2, 3, 4)
    inner = torch.func.vmap(lambda row: Seen.apply(row).sum(), in_dims=1)
    assert hj.verify_torch(lambda x: torch.func.vmap(inner, in_dims=2)(x).sum(), x)
    assert any(torch.equal(a, x[:, 0, 0]) for a in seen)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_a_rule_of_forward_mode_stays_untested():
    class Cubic(samplewise()):
        generate_vmap_rule = False

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def jvp(ctx, t):
            return 3 * ctx.saved_tensors[0] ** 2 * t

    pushed = lambda x: torch.func.jvp(Cubic.apply, (x,), (torch.ones_like(x),))[1].sum()
    found = hj.verify_torch(pushed, normal(4))
    assert not found
    assert "Cubic: dissolved by a transform of torch.func" in str(found)


# ------------------------------------------------------------------ loops to a tolerance


def equilibrium(factor, tol, way, loops):
    """`z = tanh(W z + b)`; the rule by the implicit function theorem, by a loop of its own or not."""

    class Equilibrium(Function):
        @staticmethod
        def forward(ctx, w, b):
            z, error = torch.zeros_like(b), torch.tensor(1.0)
            while way == "tensor" and error > tol:
                z, old = torch.tanh(w @ z + b), z
                error = (z - old).abs().max()
            for _ in range(300 if way != "tensor" else 0):
                z, old = torch.tanh(w @ z + b), z
                if way == "item" and (z - old).abs().max().item() < tol:
                    break
                if way == "allclose" and torch.allclose(z, old, rtol=0, atol=tol):
                    break
            ctx.save_for_backward(w, z)
            return z

        @staticmethod
        def backward(ctx, g):
            w, z = ctx.saved_tensors
            slope = 1 - z * z
            push = slope[:, None] * w
            p = torch.linalg.solve((torch.eye(len(z), dtype=z.dtype) - push).T, g)
            if loops:
                p = g
                while True:
                    p, old = g + push.T @ p, p
                    if (p - old).abs().max().item() < tol:
                        break
            p = factor * slope * p
            return p[:, None] * z, p

    return lambda w, b: (Equilibrium.apply(w, b) ** 2).sum()


@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("way", ["tensor", "item", "allclose"])
def test_the_rule_of_a_limit(way, loops, dtype):
    program = lambda factor: equilibrium(factor, 1e-3, way, loops)
    given = normal(4, 4, dtype=dtype) / 4, normal(4, dtype=dtype)
    assert verdicts(program, *given) == ("consistent", "refuted")


def test_a_branch_is_no_loop():
    push = lambda x: torch.stack([v if v > 0 else 2 * v for v in x])
    call = lambda slope: hj.verify_torch(
        lambda x: rule("Bent", push, lambda g, x: g * slope(x)).apply(x).sum(),
        torch.tensor([1.0, 2.0, -1e-4], dtype=F64),
    )
    assert call(lambda x: torch.where(x > 0, 1.0, 2.0)).verdict == "exact"
    assert call(lambda x: 1.0 + 0 * x).verdict == "refuted"


# ------------------------------------------------------------------ arithmetic inside


def test_autocast_inside_is_replayed_without_it():
    class Net(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.inner, self.factor = nn.Linear(4, 4), factor
            with torch.no_grad():
                self.inner.weight.copy_(normal(4, 4))

        def forward(self, x):
            with torch.autocast("cpu", BF16):
                y = self.inner(x)
            y = y.float()
            if self.factor != 1:
                y.register_hook(lambda g: self.factor * g)
            return (y**2).sum()

    assert verdicts(Net, normal(3, 4, dtype=F32)) == ("no custom rule", "refuted")
    assert torch.get_default_dtype() == F32


@pytest.mark.parametrize("dtype", [F64, F32, BF16], ids=str)
def test_a_cast_to_float32_inside(dtype):
    class Normed(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.weight, self.factor = nn.Parameter(torch.ones(4, dtype=dtype)), factor

        def forward(self, x):
            y = x.float()
            y = y * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-6)
            y = self.weight * y.to(x.dtype)
            if self.factor != 1:
                y.register_hook(lambda g: self.factor * g)
            return y

    def program(factor):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4, dtype=dtype), Normed(factor**4))

    assert verdicts(program, normal(3, 4, dtype=dtype)) == ("consistent", "refuted")


# ------------------------------------------------------------------ what is passed


@pytest.mark.parametrize("hole", [-math.inf, math.inf])
def test_an_infinite_argument_is_no_obstacle(hole):
    mask = torch.triu(torch.ones(4, 4, dtype=torch.bool), 1)

    def program(factor):
        push = lambda x: torch.softmax(-math.copysign(1.0, hole) * x, -1)

        def pull(g, x):
            y = push(x)
            return -math.copysign(1.0, hole) * y * (g - factor * (g * y).sum(-1, keepdim=True))

        act = rule("Masked", push, pull)
        return lambda x: (act.apply(x.masked_fill(mask, hole)) ** 2).sum()

    assert verdicts(program, normal(4, 4)) == ("exact", "refuted")


def test_a_sparse_gradient_is_one():
    class Bag(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.table, self.act = nn.Embedding(6, 3, sparse=True, dtype=F64), sine(factor)

        def forward(self, at):
            return self.act.apply(self.table(at)).sum()

    at = torch.tensor([1, 2, 2])
    assert verdicts(Bag, at) == ("exact", "refuted")
    gradient = hj.verify_torch(Bag(1.0), at).gradient["table.weight"]
    assert gradient.layout == torch.strided
    assert not torch.any(gradient[[0, 3, 4, 5]])


def test_a_dataclass_is_a_tree():
    @dataclasses.dataclass
    class Pair:
        loss: object
        rest: object
        name: str = "pair"

    def program(factor):
        act = sine(factor)
        return lambda p: Pair(act.apply(p.loss).sum(), [p.rest * 2])

    assert verdicts(program, Pair(normal(3), normal(2))) == ("exact", "refuted")
