"""Planted faults in random programs: how many are refuted at the right place, how many alarms are false.

    python benchmarks/planted_any.py [PROGRAMS] [SEED]      # 200 with one fault each, 200 without

A program is two segments, each of random widths and of one kind: layers one after another, a scan, a
scan of scans, a vmap, a branch of a cond, a rematerialised scan; one in five is a list of stages. One
layer's rule is at fault, by 1e-1 to 1e-6 in float64. Right place: the fault's rule and no other, the line
that calls it, and the iteration or stage where there is one.
"""

import collections
import linecache
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj

FAULTS = ("factor", "sign", "dropped", "argument", "channel", "iteration")
KINDS = ("straight", "scan", "nested", "vmap", "cond", "remat")
OUTER, INNER = 3, 2  # iterations


class Fault(NamedTuple):
    kind: str
    size: float
    part: int  # of state, weights, bias
    at: int  # channel or iteration


def layer(name, fault):
    """tanh(h W + b) with a rule of its own."""

    def value(h, W, b, k):
        del k
        return jnp.tanh(h @ W + b[None])

    def reverse(r, p):
        h, W, b, k = r
        z = h @ W if fault and fault.kind == "argument" and not square(W) else h @ W + b[None]
        d = p * (1 - jnp.tanh(z) ** 2)
        parts = [d @ W.T, h.T @ d, jnp.sum(d, 0)]
        return *faulty(parts, d, W, k, fault), None

    value.__name__ = value.__qualname__ = name
    made = jax.custom_vjp(value)
    made.defvjp(lambda *args: (value(*args), args), reverse)
    return made


def square(W):
    return W.shape[0] == W.shape[1]


def faulty(parts, d, W, k, fault):
    if fault is None:
        return parts
    kind, size, j, at = fault
    if kind == "argument" and square(W):
        return [d @ W, *parts[1:]]
    if kind == "channel":
        last = parts[j].shape[-1]
        grown = jnp.where(jnp.arange(last) == at % last, 1 + size, 1.0)
        parts[j] = parts[j] * jnp.broadcast_to(grown, parts[j].shape)
    scale = {"factor": 1 + size, "sign": -1.0, "dropped": 0.0}
    if kind == "iteration":
        parts[j] = parts[j] * jnp.where(k == at, 1 + size, 1.0)
    elif kind in scale:
        parts[j] = parts[j] * scale[kind]
    return parts


def segment(kind, site, h, W, b):
    """The layer `site` where it stands. `W`, `b` have a leading axis of layers."""
    if kind == "straight":
        return site(h, W[0], b[0], 0)
    if kind == "vmap":
        return jax.vmap(lambda row: site(row[None], W[0], b[0], 0)[0])(h)
    if kind == "cond":
        return jax.lax.cond(
            jnp.sum(h**2) >= 0, lambda h: site(h, W[0], b[0], 0), lambda h: -h @ W[0], h
        )

    def turn(h, k):
        return site(h, W[k], b[k], k), None

    if kind == "scan":
        return jax.lax.scan(turn, h, jnp.arange(OUTER))[0]
    if kind == "remat":
        run = jax.checkpoint(lambda h: jax.lax.scan(turn, h, jnp.arange(OUTER))[0])
        return run(h)

    def round_(h, k):
        return jax.lax.scan(turn, h, INNER * k + jnp.arange(INNER))[0], None

    return jax.lax.scan(round_, h, jnp.arange(OUTER))[0]


class Program(NamedTuple):
    verify: object  # () -> Certificate
    name: str  # of the rule at fault
    iteration: tuple | None
    stage: int | None
    words: str


def program(seed, planted):
    """A random program, with or without its fault."""
    draw = np.random.default_rng(seed)
    chain = draw.random() < 0.2
    count = int(draw.integers(2, 5)) if chain else 2
    bad = int(draw.integers(count))
    kinds = ["straight" if chain else str(draw.choice(KINDS)) for _ in range(count)]
    turns = {"scan": OUTER, "remat": OUTER, "nested": OUTER * INNER}
    possible = FAULTS if kinds[bad] in turns else FAULTS[:-1]
    kind = str(draw.choice(possible))
    at = int(draw.integers(turns[kinds[bad]])) if kind == "iteration" else int(draw.integers(8))
    fault = Fault(kind, 10.0 ** -draw.integers(1, 7), int(draw.integers(3)), at)
    width, sites, weights = int(draw.integers(3, 7)), [], []
    x = draw.normal(size=(4, width))
    for i, k in enumerate(kinds):
        out = width if k in turns else int(draw.integers(3, 7))
        n = turns.get(k, 1)
        weights.append(
            (draw.normal(size=(n, width, out)) / width**0.5, 0.3 * draw.normal(size=(n, out)))
        )
        sites.append(layer(f"rule_{i}", fault if planted and i == bad else None))
        width = out
    words = f"seed {seed}: {kind} {fault.size:.0e} of part {fault.part} in {kinds[bad]}"
    iteration = None
    if kind == "iteration":
        iteration = (at // INNER, at % INNER) if kinds[bad] == "nested" else (at,)
    if chain:
        stages = [
            (lambda x, w, site=site: site(x[None], w[0], w[1], 0)[0], (W[0], b[0]))
            for site, (W, b) in zip(sites, weights, strict=True)
        ]
        call = lambda: hj.verify(stages, inputs=x, cost=lambda y: jnp.sum(jnp.cos(y)))
        return Program(call, f"rule_{bad}", None, bad, words)

    def fn(x, weights):
        for k, site, (W, b) in zip(kinds, sites, weights, strict=True):
            x = segment(k, site, x, W, b)
        return jnp.sum(jnp.cos(x) + x)

    return Program(lambda: hj.verify(fn, x, weights), f"rule_{bad}", iteration, None, words)


def placed(found, asked):
    """What is wrong with where the certificate looks; "" if nothing is."""
    if found.verdict != "refuted":
        return found.verdict
    rows = [row for row in found.rows if row.verdict == "refuted"]
    if asked.stage is not None:
        stages = {f.index for f in found.refuted}
        return "" if stages == {asked.stage} else f"stages {stages}, not {asked.stage}"
    names = {row.rule for row in rows}
    if names != {asked.name}:
        return f"rules {names}, not {asked.name}"
    row = found.worst
    if row.file != __file__ or "site(" not in linecache.getline(row.file, row.line):
        return f"line {row.where}"
    if asked.iteration is not None and row.iteration != asked.iteration:
        return f"iteration {row.iteration}, not {asked.iteration}"
    return ""


def counts(programs, seed=0):
    """Misplaced or missed faults, and false alarms, in words."""
    missed, alarms = [], []
    for k in range(seed, seed + programs):
        asked = program(k, planted=True)
        wrong = placed(found := asked.verify(), asked)
        missed += [f"{asked.words}: {wrong}\n{found}"] if wrong else []
        found = program(k, planted=False).verify()
        alarms += [] if found.verdict == "exact" and found else [f"seed {k}: {found}"]
        if k % 20 == 19:
            jax.clear_caches()
            print(f"{k + 1 - seed} tried: {len(missed)} missed, {len(alarms)} alarms", flush=True)
    return missed, alarms


def main():
    programs, seed = (*map(int, sys.argv[1:]), *(200, 0)[len(sys.argv) - 1 :])
    clock = time.perf_counter()
    missed, alarms = counts(programs, seed)
    told = collections.Counter(
        program(k, True).words.split()[2] for k in range(seed, seed + programs)
    )
    print(
        f"faults refuted at the right place   {programs - len(missed)} of {programs}   {dict(told)}"
    )
    print(f"false alarms                        {len(alarms)} of {programs}")
    print(f"seconds                             {time.perf_counter() - clock:.0f}")
    print("\n".join([*missed, *alarms]))
    return int(bool(missed or alarms))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    sys.exit(main())
