"""What the tests of PyTorch's backward passes are made of; to import it without PyTorch skips them."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")


def normal(*shape, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)


def rule(name, forward, backward):
    """A `Function` that keeps its inputs; `backward(g, *inputs)`."""

    def push(ctx, *args):
        ctx.save_for_backward(*args)
        return forward(*args)

    def pull(ctx, g):
        return backward(g, *ctx.saved_tensors)

    body = {"forward": staticmethod(push), "backward": staticmethod(pull)}
    return type(name, (torch.autograd.Function,), body)
