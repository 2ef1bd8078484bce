"""Ordinary JAX programs, each with the right rule and with wrong twins, whose rule is named."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import hjcontrol as hj
from tests.verification.cases import rule, tanh, x


def named(found, name, function):
    """Whether every refuted row is of the rule `name`, and of this file."""
    rows = [row for row in found.rows if row.verdict == "refuted"]
    here = all(os.path.samefile(row.file, __file__) and row.function == function for row in rows)
    return bool(rows) and here and {row.rule for row in rows} == {name}


# ------------------------------------------------------------------ shard_map: the rule inside is named


def sine_of_shard(factor, only):
    """sin, whose rule is off by a factor at one shard."""
    right = lambda x, p: p * jnp.cos(x)
    return rule(
        lambda x, i: jnp.sin(x),
        lambda r, p: (jnp.where(r[1] == only, factor, 1.0) * right(r[0], p), None),
        name="of_shard",
    )


def network(act, other, devices=1, checked=True):
    """Two rules in a `shard_map`, one of them in a scan, with a sum over the shards."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("d",))
    rows = PartitionSpec("d")

    def body(x, w):
        turn = lambda h, _: (act(h @ w), None)
        h = jax.lax.scan(turn, x, None, length=3)[0]
        return jax.lax.psum(jnp.sum(other(2.0 * h), 0), "d")

    mapped = jax.shard_map(
        body, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=PartitionSpec(),
        check_vma=checked,
    )  # fmt: skip
    return lambda x, w: jnp.sum(mapped(x, w) ** 2)


WEIGHTS = x[:8] / 3


@pytest.mark.parametrize(
    ("checked", "factors", "function"),
    [(True, (1.01, 1.0), "network.body.lambda"), (False, (1.0, 1.01), "network.body")],
)
def test_a_wrong_rule_in_a_shard_map_is_named(checked, factors, function):
    names = ("first", "second")
    program = lambda factors: network(*map(tanh, factors, names), 1, checked)
    assert hj.verify(program((1.0, 1.0)), x[:4], WEIGHTS).verdict == "exact"
    found = hj.verify(program(factors), x[:4], WEIGHTS)
    assert named(found, names[factors.index(1.01)], function)
    assert 0.009 < found.worst.gap < 0.011
    assert "inside shard_map" in found.worst.reason


def test_what_is_declared_in_a_shard_map_hides_no_other_rule():
    through = rule(jnp.round, lambda r, p: (p,), name="through")
    declared = hj.deliberate("straight-through")(through)
    mesh = Mesh(np.array(jax.devices()[:1]), ("d",))
    spec = PartitionSpec("d")

    def total(act):
        body = lambda x: act(declared(3 * x))
        return lambda x: jnp.sum(
            jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec)(x) ** 2
        )

    assert hj.verify(total(tanh(1.0, "good")), x).verdict == "deliberate"
    found = hj.verify(total(tanh(1.01, "bad")), x)
    assert found.verdict == "refuted"
    assert {row.rule: row.verdict for row in found.rows} == {
        "bad": "refuted",
        "through": "deliberate",
    }


def test_a_rule_that_is_wrong_at_one_shard_of_four():
    code = """
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    import hjcontrol as hj
    from jax.sharding import Mesh, PartitionSpec
    from tests.verification.cases import x
    from tests.verification.test_jax_programs import sine_of_shard
    mesh, spec = Mesh(np.array(jax.devices()), ("d",)), PartitionSpec("d")
    for factor in (1.0, 1.01):
        act = sine_of_shard(factor, 2)
        body = lambda x: act(x, jax.lax.axis_index("d"))
        mapped = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec)
        found = hj.verify(lambda x: jnp.sum(mapped(x) ** 2), x)
        print(found.verdict, found.worst.rule)
    """
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    said = found.stdout.splitlines()
    assert len(said) == 2, found.stderr[-2000:]
    assert said[0].startswith("exact")
    assert said[1] == "refuted of_shard"
