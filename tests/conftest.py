"""The suite's switches: 64-bit floats, no silent broadcasting, drawn values that repeat.

`JAX_ENABLE_X64=0` runs the suite in 32 bits, and then only what is marked `any_precision`.
"""

import os
import pathlib

import hypothesis
import jax
import jaxtyping
import pytest

X64 = os.environ.get("JAX_ENABLE_X64", "1").lower() not in ("0", "false", "off")

jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_numpy_rank_promotion", "raise")

if os.environ.get("JAX_COMPILATION_CACHE_DIR") is None:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home, "hjcontrol", "jax")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

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
    """With 64-bit floats off, only the laws that hold in any precision are run."""
    if X64:
        return
    kept = [item for item in items if item.get_closest_marker("any_precision")]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


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
