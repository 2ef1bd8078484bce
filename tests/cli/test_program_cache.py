"""Compiled programs of the command line stay in the user's cache folder, unless he named another."""

import types

from hjcontrol.cli.command import _keep_programs


class Config(types.SimpleNamespace):
    def update(self, name, value):
        setattr(self, name, value)


def test_programs_stay_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = Config(jax_compilation_cache_dir=None)
    _keep_programs(config)
    assert config.jax_compilation_cache_dir == str(tmp_path / "hjcontrol" / "jax")
    assert config.jax_persistent_cache_min_compile_time_secs == 0


def test_a_folder_that_the_user_named_is_his():
    config = Config(jax_compilation_cache_dir="mine")
    _keep_programs(config)
    assert vars(config) == {"jax_compilation_cache_dir": "mine"}
