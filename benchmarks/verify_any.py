"""What `hj.verify(fn, *args)` costs beside one backpropagation, and what it finds.

    python verify_any.py [cost] [peer]

Cost: seconds of `jit(grad(fn))` and of the measuring programs, warm and to compile (tracing included,
JAX's caches cleared), the least of several, with the largest gap of the certificate beside them. Memory:
XLA's temporary buffers and the outputs.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj
from hjcontrol.verification.function import stated

REPEATS, COMPILED = 15, 4  # the least of so many


def elementwise(value, slope):
    """An activation with a rule of its own."""

    @jax.custom_vjp
    def rule(x):
        return value(x)

    rule.defvjp(lambda x: (value(x), x), lambda x, p: (p * slope(x),))
    return rule


def tanh(factor=1.0):
    return elementwise(jnp.tanh, lambda x: factor * (1 - jnp.tanh(x) ** 2))


def gelu(factor=1.0):
    c = 0.7978845608028654

    def slope(x):
        t = jnp.tanh(c * (x + 0.044715 * x**3))
        return factor * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2))

    return elementwise(lambda x: 0.5 * x * (1 + jnp.tanh(c * (x + 0.044715 * x**3))), slope)


def rms_norm():
    @jax.custom_vjp
    def norm(x):
        return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)

    def backward(x, p):
        s = jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)
        return (s * (p - x * s**2 * jnp.mean(p * x, -1, keepdims=True)),)

    norm.defvjp(lambda x: (norm(x), x), backward)
    return norm


def mlp(dtype, depth=12, batch=512, width=128):
    acts = [tanh() for _ in range(depth)]
    keys = jax.random.split(jax.random.key(0), depth + 1)
    Ws = [jax.random.normal(k, (width, width), dtype) / width**0.5 for k in keys[1:]]
    x = jax.random.normal(keys[0], (batch, width), dtype)

    def loss(Ws, x):
        for act, W in zip(acts, Ws, strict=True):
            x = x + 0.3 * act(x @ W)
        return jnp.mean(x**2)

    return loss, (Ws, x)


def lstm(dtype, steps=200, batch=32, width=64):
    sigmoid = elementwise(jax.nn.sigmoid, lambda x: jax.nn.sigmoid(x) * (1 - jax.nn.sigmoid(x)))
    act = tanh()
    a, b = jax.random.split(jax.random.key(1))
    params = {
        "W": jax.random.normal(a, (2 * width, 4 * width), dtype) / (2 * width) ** 0.5,
        "b": jnp.zeros(4 * width, dtype),
    }
    xs = jax.random.normal(b, (steps, batch, width), dtype)

    def loss(params, xs):
        def step(state, x):
            h, c = state
            i, f, g, o = jnp.split(jnp.concatenate([h, x], -1) @ params["W"] + params["b"], 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * act(g)
            h = sigmoid(o) * act(c)
            return (h, c), h

        start = (jnp.zeros((batch, width), dtype),) * 2
        _, hs = jax.lax.scan(step, start, xs)
        return jnp.mean(hs**2)

    return loss, (params, xs)


def gpt(dtype, blocks=8, batch=8, length=64, width=128, heads=4, vocabulary=256, scanned=False):
    act, norm = gelu(), rms_norm()
    keys = iter(jax.random.split(jax.random.key(2), 8 * blocks + 8))
    draw = lambda *s: jax.random.normal(next(keys), s, dtype) / s[0] ** 0.5
    params = {
        "embed": draw(vocabulary, width),
        "blocks": [
            {
                "qkv": draw(width, 3 * width),
                "out": draw(width, width),
                "up": draw(width, 4 * width),
                "down": draw(4 * width, width),
            }
            for _ in range(blocks)
        ],
    }
    tokens = jax.random.randint(next(keys), (batch, length), 0, vocabulary)

    def block(p, x):
        q, k, v = jnp.split(norm(x) @ p["qkv"], 3, -1)
        split = lambda a: a.reshape(batch, length, heads, -1)
        q, k, v = split(q), split(k), split(v)
        scores = jnp.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
        mask = jnp.tril(jnp.ones((length, length), bool))
        w = jax.nn.softmax(jnp.where(mask, scores, -1e9), -1)
        x = x + jnp.einsum("bhij,bjhd->bihd", w, v).reshape(batch, length, width) @ p["out"]
        return x + act(norm(x) @ p["up"]) @ p["down"]

    def loss(params, tokens):
        x = params["embed"][tokens]
        if scanned:
            stacked = jax.tree.map(lambda *a: jnp.stack(a), *params["blocks"])
            x, _ = jax.lax.scan(lambda x, p: (block(p, x), None), x, stacked)
        else:
            for p in params["blocks"]:
                x = block(p, x)
        logits = norm(x) @ params["embed"].T
        logp = jax.nn.log_softmax(logits[:, :-1])
        return -jnp.mean(jnp.take_along_axis(logp, tokens[:, 1:, None], -1))

    return loss, (params, tokens)


def scan_of(dtype, length=512, batch=64, width=64):
    act = tanh()
    W = jax.random.normal(jax.random.key(3), (width, width), dtype) / width**0.5
    x = jax.random.normal(jax.random.key(4), (batch, width), dtype)

    def loss(W, x):
        return jnp.mean(
            jax.lax.scan(lambda h, _: (act(h @ W), None), x, None, length=length)[0] ** 2
        )

    return loss, (W, x)


def scanned_gpt(dtype):
    return gpt(dtype, scanned=True)


PROGRAMS = {
    "mlp 12": mlp,
    "lstm 200": lstm,
    "gpt 8": gpt,
    "gpt 8, scan": scanned_gpt,
    "scan 512": scan_of,
}


def seconds(run, *args):
    best = np.inf
    for _ in range(REPEATS):
        clock = time.perf_counter()
        jax.block_until_ready(run(*args))
        best = min(best, time.perf_counter() - clock)
    return best


def clocked(function):
    clock = time.perf_counter()
    found = function()
    return found, time.perf_counter() - clock


def memory(programs):
    """Most bytes that a run holds: temporary ones, and what it hands on."""
    found = [p.memory_analysis() for p in programs]
    return found[0].output_size_in_bytes + max(m.temp_size_in_bytes for m in found)


def floating(args):
    kinds = [jax.tree.leaves(a)[0].dtype for a in args]
    return tuple(k for k, d in enumerate(kinds) if jnp.issubdtype(d, jnp.floating))


def by_gradient(fn, args):
    """`jit(grad(fn))` compiled, and the seconds that took."""
    jax.clear_caches()
    grad = jax.jit(jax.grad(fn, floating(args)))
    return clocked(lambda: grad.lower(*args).compile())


def by_measuring(fn, args):
    """The call, the measuring programs compiled, and the seconds that took."""
    jax.clear_caches()
    call = stated(fn, args, lambda path: True, {"has_aux": False, "every": False, "order": 1})
    lowered = lambda: [program.compile() for program in call.program.lowered(call.leaves)]
    return call, *clocked(lowered)


def cost(dtype=jnp.float64):
    print("ratios: the witness over jit(grad(fn)); seconds of hj.verify: first and second call")
    print(
        f"{'program':<13}{'verdict':<9}{'gap':>8}{'backprop':>11}{'warm x':>8}{'compile':>9}"
        f"{'x':>6}{'+ s':>6}{'memory x':>10}{'first':>8}{'second':>8}"
    )
    for name, make in PROGRAMS.items():
        fn, args = make(dtype)
        certificate, first = clocked(lambda f=fn, a=args: hj.verify(f, *a))
        _, second = clocked(lambda f=fn, a=args: hj.verify(f, *a))
        by_grad, by_witness = np.inf, np.inf
        for _ in range(COMPILED):
            (grad, took), (call, programs, took_too) = by_gradient(fn, args), by_measuring(fn, args)
            by_grad, by_witness = min(by_grad, took), min(by_witness, took_too)
        base = seconds(grad, *args)
        warm = seconds(lambda c=call: c.program.measure(c.leaves).gradient)
        gap = max(r.gap for r in certificate.rows)
        print(
            f"{name:<13}{certificate.verdict:<9}{gap:>8.0e}{1e3 * base:>8.1f} ms{warm / base:>8.2f}"
            f"{by_grad:>7.2f} s{by_witness / by_grad:>6.2f}{by_witness - by_grad:>6.2f}"
            f"{memory(programs) / memory([grad]):>10.2f}{first:>7.2f}s{second:>7.3f}s"
        )


def peer(dtype=jnp.float64):
    """`jax.test_util.check_grads` on the same programs: seconds, and whether a fault of 1 % is seen."""
    from jax.test_util import check_grads

    for name in ("mlp 12", "lstm 200", "gpt 8, scan"):
        fn, args = PROGRAMS[name](dtype)
        some = floating(args)

        def of(*moved, fn=fn, args=args, some=some):
            full = list(args)
            for k, a in zip(some, moved, strict=True):
                full[k] = a
            return fn(*full)

        def usual(of=of, moved=tuple(args[k] for k in some)):
            try:
                check_grads(of, moved, order=1, modes=["rev"])
            except AssertionError:
                return "failed"
            return "passed"

        said, by_check = clocked(usual)
        certificate, by_verify = clocked(lambda f=fn, a=args: hj.verify(f, *a))
        print(
            f"{name:<13} check_grads {said} in {by_check:.2f} s, verify {certificate.verdict} in "
            f"{by_verify:.2f} s (compile included in both; the program is right)"
        )


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    asked = sys.argv[1:] or ["cost", "peer"]
    if "cost" in asked:
        cost()
    if "peer" in asked:
        peer()
