"""What `hj.verify(fn, *args)` costs beside one backpropagation, and what it finds.

    python benchmarks/verify_any.py [cost] [faults] [memory] [peers]

Cost: seconds of `jit(grad(fn))` and of the measuring program, warm (minimum of `REPEATS`) and to compile,
in one process each, with the largest gap of the certificate beside them. Memory: XLA's temporary buffers.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj
from hjcontrol.verification.function import stated

REPEATS = 15


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
    a, b, c = jax.random.split(jax.random.key(1), 3)
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


PROGRAMS = {
    "mlp 12": mlp,
    "lstm 200": lstm,
    "gpt 8": gpt,
    "gpt 8 scan": lambda dtype: gpt(dtype, scanned=True),
    "scan 512": scan_of,
}


def seconds(run, *args):
    best = np.inf
    for _ in range(REPEATS):
        clock = time.perf_counter()
        jax.block_until_ready(run(*args))
        best = min(best, time.perf_counter() - clock)
    return best


def compiled(function, *args):
    clock = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    return program, time.perf_counter() - clock


def cost(dtype=jnp.float64):
    print(
        f"{'program':<11}{'verdict':<9}{'gap':>9}{'backprop':>11}{'warm':>7}{'compile':>9}{'x':>6}{'memory':>8}{'first':>8}{'second':>8}"
    )
    for name, make in PROGRAMS.items():
        fn, args = make(dtype)
        argnums = tuple(
            k
            for k, a in enumerate(args)
            if jnp.issubdtype(jax.tree.leaves(a)[0].dtype, jnp.floating)
        )
        grad, by_grad = compiled(jax.grad(fn, argnums), *args)
        base = seconds(grad, *args)
        clock = time.perf_counter()
        certificate = hj.verify(fn, *args)
        first = time.perf_counter() - clock
        clock = time.perf_counter()
        hj.verify(fn, *args)
        second = time.perf_counter() - clock
        call = stated(
            fn,
            args,
            lambda path: True if path[0].idx else False,
            {"has_aux": False, "every": False, "order": 1},
        )
        from hjcontrol.verification.rule import Settings

        run = call.program._run(Settings())
        program, by_witness = compiled(run, call.leaves, jnp.asarray(0, jnp.int32), None)
        warm = seconds(program, call.leaves, jnp.asarray(0, jnp.int32), None)
        temp = lambda p: p.memory_analysis().temp_size_in_bytes
        gap = max(r.gap for r in certificate.rows)
        print(
            f"{name:<11}{certificate.verdict:<9}{gap:>9.1e}{1e3 * base:>8.2f} ms{warm / base:>7.2f}"
            f"{by_grad:>7.2f} s{by_witness / by_grad:>6.2f}{temp(program) / temp(grad):>8.2f}{first:>7.2f}s{second:>7.3f}s"
        )


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    cost()
