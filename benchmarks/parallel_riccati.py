"""Riccati in parallel over depth against the sequential sweep and diffilqrax's associative scan.

The same random convex LQ problems, without cross terms; states, controls and value functions compared
with a textbook sweep in NumPy (`apart`).
diffilqrax (`pip install diffilqrax`) runs where it is importable; `--peer PYTHON` names an interpreter
that has it, for the same problems in the same run.
"""

import argparse
import importlib
import json
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row, timed

DEPTHS = (16, 64, 256, 1024, 4096)
SIZES = (2, 4, 8, 16)
NAMES = ("A", "B", "c", "Q", "R", "q", "r")


def draw(depth: int, d: int) -> dict[str, np.ndarray]:
    """A convex problem of `depth` stages, state `d`, as many controls as half of it."""
    normal, m = np.random.default_rng(depth + d).normal, max(1, d // 2)

    def positive(k: int, size: int) -> np.ndarray:
        root = normal(size=(k, size, size))
        return root @ root.transpose(0, 2, 1) / size + 0.5 * np.eye(size)

    A = normal(size=(depth, d, d))
    A = A / np.linalg.norm(A, 2, axis=(1, 2))[:, None, None]
    stages = (
        A,
        normal(size=(depth, d, m)),
        normal(size=(depth, d)),
        positive(depth, d),
        positive(depth, m),
        normal(size=(depth, d)),
        normal(size=(depth, m)),
    )
    ends = {"QK": positive(1, d)[0], "qK": normal(size=d), "start": normal(size=d)}
    return dict(zip(NAMES, stages, strict=True)) | ends


def ours(data: dict[str, np.ndarray]) -> tuple[object, dict[str, object]]:
    from hjcontrol.solvers.riccati import associative, lqr

    a = {name: jnp.asarray(v) for name, v in data.items()}
    zero = jnp.zeros_like(a["B"])
    stages = lqr.Stage(a["A"], a["B"], a["c"], a["Q"], zero, a["R"], a["q"], a["r"])
    problem = lqr.LQR(stages, a["QK"], a["qK"])

    def by(sweep, simulate):
        def solve(problem, start):
            policy = sweep(problem)
            return policy.P, *simulate(problem, policy, start)

        return jax.jit(solve)

    return (problem, a["start"]), {
        "sequential": by(lqr.sequential, lqr.simulate),
        "parallel": by(associative.parallel, associative.simulate),
    }


def peer(data: dict[str, np.ndarray]) -> tuple[object, dict[str, object]]:
    plqr, typs = (importlib.import_module(f"diffilqrax.{name}") for name in ("plqr", "typs"))

    a = {name: jnp.asarray(v) for name, v in data.items()}
    fields = {"A": a["A"], "B": a["B"], "a": a["c"], "Q": a["Q"], "q": a["q"], "R": a["R"]}
    fields |= {"r": a["r"], "S": jnp.zeros_like(a["B"]), "Qf": a["QK"], "qf": a["qK"]}
    problem = typs.LQRParams(a["start"], typs.LQR(**fields))

    def solve(problem):
        etas, P = plqr.associative_riccati_scan(problem)
        x, gains = plqr.associative_opt_traj_scan(problem, etas, P)
        x = jnp.concatenate([problem.x0[None], x])
        return P, x, (gains.K @ x[:-1, :, None])[..., 0] + gains.k

    return (problem,), {"diffilqrax": jax.jit(solve)}


def measure(build, data, reference) -> tuple[list[np.ndarray], list[dict[str, object]]]:
    found, rows = reference, []
    arguments, methods = build(data)
    for name, method in methods.items():
        answer = [np.asarray(v) for v in method(*arguments)]
        found = answer if found is None else found
        apart = max(np.abs(x - y).max() for x, y in zip(answer, found, strict=True))
        median, least, greatest = timed(lambda m=method: m(*arguments), repeats=9)
        rows.append(
            {"method": name, "apart": float(apart), "ms": 1e3 * median}
            | {"least_ms": 1e3 * least, "greatest_ms": 1e3 * greatest}
        )
    return found, rows


def by_subprocess(
    python: str, sizes: list[int], depths: list[int]
) -> dict[tuple[int, int], list[dict[str, object]]]:
    """The rows of the peer in another interpreter, on the same numbers, by state and depth."""
    command = [python, __file__, "--answer", "--states", *map(str, sizes)]
    command += ["--depths", *map(str, depths)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("[")]
    return {(d, depth): found for d, depth, found in rows}


def answer(sizes: list[int], depths: list[int]) -> None:
    """The peer's answers and times, judged against a sweep in NumPy."""
    for d in sizes:
        for depth in depths:
            data = draw(depth, d)
            print(json.dumps([d, depth, measure(peer, data, swept(data))[1]]))


def swept(data: dict[str, np.ndarray]) -> list[np.ndarray]:
    """`P`, states and controls by the textbook recursion, stage after stage: a witness of its own."""
    P, p, values, gains = data["QK"], data["qK"], [data["QK"]], []
    stages = list(zip(*(data[name] for name in NAMES), strict=True))
    for A, B, c, Q, R, q, r in reversed(stages):
        H = R + B.T @ P @ B
        K = -np.linalg.solve(H, B.T @ P @ A)
        k = -np.linalg.solve(H, r + B.T @ (P @ c + p))
        p = q + A.T @ (P @ (B @ k + c) + p)
        P = Q + A.T @ P @ (A + B @ K)
        P = 0.5 * (P + P.T)
        values.insert(0, P)
        gains.insert(0, (K, k))
    x, controls = [data["start"]], []
    for (A, B, c, *_), (K, k) in zip(stages, gains, strict=True):
        controls.append(K @ x[-1] + k)
        x.append(A @ x[-1] + B @ controls[-1] + c)
    return [np.asarray(values), np.asarray(x), np.asarray(controls)]


def main(python: str | None, sizes: list[int], depths: list[int]) -> None:
    header(
        "Riccati in parallel over depth: equality and time, against the sequential sweep and a peer"
    )
    elsewhere = None if python is None else by_subprocess(python, sizes, depths)
    for d in sizes:
        for depth in depths:
            data = draw(depth, d)
            reference = swept(data)
            rows = measure(ours, data, reference)[1]
            peers = measure(peer, data, reference)[1] if elsewhere is None else elsewhere[d, depth]
            for fields in rows + peers:
                row(state=d, depth=depth, **fields)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", help="a Python interpreter that has diffilqrax")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--states", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS))
    given = parser.parse_args()
    if given.answer:
        answer(given.states, given.depths)
    else:
        main(given.peer, given.states, given.depths)
