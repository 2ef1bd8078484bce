"""More backward passes of PyTorch: unused outputs, hidden state, bound `apply`, ties, empty inputs."""

import warnings

import pytest

import hjcontrol as hj

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")
Function = torch.autograd.Function

pytestmark = pytest.mark.any_precision  # nothing here is JAX's

X = [0.3, -1.1, 0.7]


def vector(*numbers, dtype=torch.float64):
    return torch.tensor(numbers, dtype=dtype)


def sine(factor=1.0, name="Sine"):
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    def backward(ctx, p):
        return factor * p * ctx.saved_tensors[0].cos()

    return type(
        name, (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )


def both(factor=1.0, materialize=True):
    class Both(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            ctx.set_materialize_grads(materialize)
            return x.sin(), x.cos()

        @staticmethod
        def backward(ctx, p, q):
            (x,) = ctx.saved_tensors
            found = torch.zeros_like(x)
            if p is not None:
                found = found + factor * p * x.cos()
            return found if q is None else found - q * x.sin()

    return Both


@pytest.mark.parametrize("materialize", [True, False])
@pytest.mark.parametrize("used", [0, 1])
def test_an_output_may_be_unused(materialize, used):
    right = hj.verify_torch(lambda x: both(1.0, materialize).apply(x)[used].sum(), vector(*X))
    assert right, str(right)
    assert right.verdict == "exact"
    wrong = hj.verify_torch(lambda x: both(1.01, materialize).apply(x)[used].sum(), vector(*X))
    assert wrong.verdict == "refuted"


def counted(first):
    class Counted(Function):
        n = 0

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, p):
            Counted.n += 1
            return p * ctx.saved_tensors[0].cos() * (first if Counted.n == 1 else 1)

    return Counted


def test_a_count_that_changes_nothing_is_fine():
    act = counted(1.0)
    assert hj.verify_torch(lambda x: act.apply(x).sum(), vector(*X)).verdict == "exact"


@pytest.mark.parametrize("first", [1.5, 1.001, 0.0])
def test_a_rule_that_differs_in_the_program_is_untested(first):
    act = counted(first)
    found = hj.verify_torch(lambda x: act.apply(x).sum(), vector(*X))
    assert not found
    assert found.verdict == "untested"
    assert "a state that is not passed" in str(found)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (1.01, "refuted")])
def test_a_rule_may_write_on_its_costate(factor, verdict):
    class Writing(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, p):
            return p.mul_(factor * ctx.saved_tensors[0].cos())

    act = Writing.apply
    found = hj.verify_torch(lambda x: (act(act(2 * x)) ** 2).sum(), vector(*X))
    assert found.verdict == verdict, str(found)


def test_an_argument_given_twice_has_the_sum():
    class Product(Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, p):
            x, y = ctx.saved_tensors
            return p * y, p * x

    found = hj.verify_torch(lambda x: Product.apply(x, x).sum(), vector(*X))
    assert found.verdict == "exact", str(found)
    torch.testing.assert_close(found.gradient["input 0"], 2 * vector(*X))


@pytest.mark.parametrize("way", ["variable", "static"])
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (1.01, "refuted")])
def test_a_bound_apply_is_met(way, factor, verdict):
    rule = sine(factor, "Bound")
    call = rule.apply

    class Net(torch.nn.Module):
        act = staticmethod(rule.apply)

        def forward(self, x):
            return self.act(x).sum()

    program = Net() if way == "static" else lambda x: call(x).sum()
    found = hj.verify_torch(program, vector(*X))
    assert found.verdict == verdict, str(found)
    assert [row.rule for row in found.rows] == ["Bound"]


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("take", ["grad", "vmap"])
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (1.01, "refuted")])
def test_a_bound_apply_is_met_inside_a_transform_too(factor, verdict, take, bound):
    class Apart(Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.sin()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, p):
            return factor * p * ctx.saved_tensors[0].cos()

    call = Apart.apply
    inner = lambda x: (call if bound else Apart.apply)(x).sum()
    within = getattr(torch.func, take)(inner)
    found = hj.verify_torch(lambda x: within(x).sum(), vector(*X))
    assert found.verdict == verdict, str(found)
    assert [row.rule for row in found.rows] == ["Apart"]


def test_apply_is_afterwards_what_it_was():
    level = Function.__bases__[0]
    call = torch.autograd.function.custom_function_call
    before = call, level.__dict__.get("apply")
    hj.verify_torch(lambda x: sine().apply(x).sum(), vector(*X))
    with pytest.raises(ZeroDivisionError):
        hj.verify_torch(lambda x: sine().apply(x).sum() / (1 // 0), vector(*X))
    call = torch.autograd.function.custom_function_call
    assert (call, level.__dict__.get("apply")) == before


def stale():
    """A class that keeps its last input: a second call spoils the first one's derivative."""

    class Stale(Function):
        @staticmethod
        def forward(ctx, x):
            Stale.x = x
            return x.sin()

        @staticmethod
        def backward(ctx, p):
            return p * Stale.x.cos()

    return Stale


def test_a_stale_class_is_not_detached():
    act = stale()
    found = hj.verify_torch(lambda x: act.apply(act.apply(x)).sum(), vector(*X))
    assert not found
    assert ".detach()" not in str(found)
    assert found.verdict != "detached"
    assert "a state that is not passed" in str(found)


def test_a_guard_at_zero_is_not_detached():
    class Guarded(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.where(x == 0, torch.zeros_like(x), x.sin())

        @staticmethod
        def backward(ctx, p):
            (x,) = ctx.saved_tensors
            return torch.where(x == 0, torch.zeros_like(x), p * x.cos())

    found = hj.verify_torch(lambda x: Guarded.apply(x).sum(), vector(0.0, 0.5, 0.0))
    assert not found
    assert found.verdict == "refuted"
    assert ".detach()" not in str(found)
    assert hj.verify_torch(lambda x: Guarded.apply(x).sum(), vector(*X))

    def penalized(x):  # a backward pass inside, where the costates are recorded too
        (slope,) = torch.autograd.grad(sine().apply(x).sum() ** 2, x, create_graph=True)
        return Guarded.apply(x).sum() + (slope**2).sum()

    twice = hj.verify_torch(penalized, vector(0.0, 0.5, 0.0))
    assert twice.verdict == "refuted"
    assert ".detach()" not in str(twice)
    assert hj.verify_torch(penalized, vector(*X))


def test_what_cuts_beside_a_rule_is_named():
    def halted(x):
        with torch.no_grad():
            mean = x.mean()
        return ((sine().apply(x) - mean) ** 4).sum()

    cut = hj.verify_torch(lambda x: ((sine().apply(x) - x.mean().detach()) ** 4).sum(), vector(*X))
    assert cut.verdict == "detached"
    assert "cut by .detach() at" in str(cut)
    found = hj.verify_torch(halted, vector(*X))
    assert found.verdict == "detached"
    assert "cut by no_grad at" in str(found)


def first_largest(factor=1.0):
    class First(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.max()

        @staticmethod
        def backward(ctx, p):
            (x,) = ctx.saved_tensors
            found = torch.zeros_like(x)
            found[int(x.argmax())] = factor * p
            return found

    return First


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_tie_is_a_kink(dtype):
    x = vector(1.0, 1.0, -2.0, dtype=dtype)
    found = hj.verify_torch(lambda x: first_largest().apply(x), x)
    assert found.verdict == "exact", str(found)
    assert any(row.kink for row in found.rows)
    assert not hj.verify_torch(lambda x: first_largest(3.0).apply(x), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (3.0, "refuted")])
def test_a_tie_beside_a_row_without_one(dtype, factor, verdict):
    class Rows(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.amax(-1)

        @staticmethod
        def backward(ctx, p):
            (x,) = ctx.saved_tensors
            found = torch.zeros_like(x)
            found[[0, 1], x.argmax(-1)] = p * torch.tensor([factor, 1.0], dtype=p.dtype)
            return found

    x = torch.tensor([[1, 1, -2], [3, 1, 2]], dtype=dtype)
    found = hj.verify_torch(lambda x: Rows.apply(x).sum(), x)
    place = next(row for row in found.rows if row.rule == "Rows")
    assert place.verdict == verdict, str(found)
    assert place.kink == (verdict == "exact")


def test_an_empty_input_is_told_in_words():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for program in (lambda x: sine().apply(x).sum(), lambda x: x.sin().sum()):
            found = hj.verify_torch(program, vector())
            assert "Error" not in str(found)
            assert "empty" in str(found)
        found = hj.verify_torch(lambda x: sine().apply(x).sum(), vector())
    assert found.verdict == "untested"
    assert not found


@pytest.mark.parametrize(("cut", "verdict"), [(False, "no custom rule"), (True, "detached")])
def test_the_padding_row_of_an_embedding_has_no_derivative_and_is_said(cut, verdict):
    class Bag(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(5, 4, padding_idx=0)
            self.head = torch.nn.Linear(4, 2)

        def forward(self, at):
            x = self.table(at)
            return (self.head(x) ** 2).sum() + ((x.detach() if cut else x) ** 2).sum()

    torch.manual_seed(0)
    found = hj.verify_torch(Bag(), torch.tensor([[0, 1, 3], [2, 0, 0]]))
    assert found.verdict == verdict
    assert cut or "table.weight[0] has no derivative by `padding_idx`" in str(found)
