"""The suite's switches: 64-bit floats, no silent broadcasting, drawn values that repeat.

`JAX_ENABLE_X64=0` runs the suite in 32 bits, and then only what is marked `any_precision`.

What the suite spends its time on is XLA's compiler, so the tests compile in haste: no LLVM optimisation,
plain loops instead of fused kernels, one module a program. A program compiled so is a few times slower
and is there four times sooner. The README's code and the main job run with XLA's own settings;
`XLA_FLAGS` in the environment overrides ours. What was compiled is kept, for the other workers and for
the processes that tests start.
"""

import gc
import os
import pathlib

import equinox as eqx
import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

from tests.haste import HASTE
from tests.slow import asked_for, is_slow
from tests.type_checks import install

install()
os.environ.setdefault("XLA_FLAGS", " ".join(HASTE))  # read when JAX makes its first array

X64 = os.environ.get("JAX_ENABLE_X64", "1").lower() not in ("0", "false", "off")

jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_numpy_rank_promotion", "raise")

if os.environ.get("JAX_COMPILATION_CACHE_DIR") is None:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pathlib.Path(home, "hjcontrol", "jax"))
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
KEPT = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}
for switch, least in KEPT.items():
    jax.config.update(switch, least)
    os.environ.setdefault(switch.upper(), str(int(least)))

# Tracing makes millions of small objects, few of them in cycles, and Python looks through the young ones
# at every 700: a tenth of the suite's time.
gc.set_threshold(50_000, 10, 10)

hypothesis.settings.register_profile(
    "laws",
    deadline=None,
    derandomize=True,
    max_examples=60,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("laws")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With 64-bit floats off, only the laws that hold in any precision are run; slow tests where they are
    asked for."""
    wanted = lambda item: X64 or item.get_closest_marker("any_precision")
    kept = [item for item in items if wanted(item) and (asked_for() or not is_slow(item.nodeid))]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


RESIDENT = 3 * 2**30  # bytes a worker may hold before it lets go of what it has compiled


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_go():
    """Lets go of compiled programs at a module's end where they have grown large."""
    yield
    pages = pathlib.Path("/proc/self/statm")
    if pages.exists() and int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > RESIDENT:
        eqx.clear_caches()
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def draws_repeat(request: pytest.FixtureRequest):
    """A module's generators begin each test alike: what a test draws does not depend on which tests its
    worker ran before."""
    drawn = [g for g in vars(request.module).values() if isinstance(g, np.random.Generator)]
    states = [g.bit_generator.state for g in drawn]
    yield
    for generator, state in zip(drawn, states, strict=True):
        generator.bit_generator.state = state


@pytest.fixture
def key() -> jax.Array:
    """A random key, the same for every test."""
    return jax.random.key(20260528)


@pytest.fixture
def unchecked():
    """Switches the suite's type checker off: what a user who passes a wrong thing reads."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
