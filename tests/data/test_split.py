"""Splits: stratified, disjoint, repeatable, standardised by the training part alone."""

import dataclasses
import zlib

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hjcontrol.data import DataError, DataSet, load, split, subset

pytestmark = pytest.mark.any_precision


def made(counts, columns=3, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    features = np.random.default_rng(seed).normal(size=(len(labels), columns))
    names = tuple(f"f{i}" for i in range(columns))
    return DataSet(features, labels, tuple(map(str, range(len(counts)))), names, "made")


@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.floats(0.05, 0.95))
def test_shares_follow_the_classes(counts, fraction):
    data, total = made(counts), sum(counts)
    train = min(max(round(fraction * total), len(counts)), total - len(counts))
    parts = split(data, train, key=jax.random.key(1))
    assert (len(parts.train), len(parts.test)) == (train, total - train)
    share = np.bincount(parts.train.targets, minlength=len(counts))
    ideal = train * np.array(counts) / total
    assert np.all(share >= 1)
    assert np.all(share <= np.array(counts) - 1)
    free = (ideal >= 1) & (ideal <= np.array(counts) - 1)
    if free.all():
        assert np.all(np.abs(share - ideal) < 1)


def test_parts_are_a_partition_and_standardised(key):
    data = load("wine")
    parts = split(data, 0.75, key=key)
    raw = np.concatenate([p.features * parts.scale + parts.mean for p in (parts.train, parts.test)])
    order = lambda a: a[np.lexsort(np.round(a, 8).T)]
    np.testing.assert_allclose(order(raw), order(data.features), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(parts.train.features.mean(axis=0), 0, atol=1e-13)
    np.testing.assert_allclose(parts.train.features.std(axis=0), 1, atol=1e-13)


def test_same_key_same_split(key):
    data = load("iris")
    one, again = split(data, 0.8, key=key), split(data, 0.8, key=key)
    other = split(data, 0.8, key=jax.random.key(99))
    np.testing.assert_array_equal(one.train.features, again.train.features)
    assert not np.array_equal(one.train.features, other.train.features)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9, -1e-300])
def test_constant_column_keeps_its_scale(key, constant):
    data = made([9, 9])
    data.features[:, 1] = constant
    parts = split(data, 0.5, key=key)
    assert parts.scale[1] == 1.0
    assert np.abs(parts.test.features[:, 1]).max() <= 1e-14 * abs(constant)


@pytest.mark.parametrize("size", [0, 1.0, 1.5, -0.2, float("nan"), 2, 17, 0.01, 0.99])
def test_size_out_of_range(key, size):
    with pytest.raises(DataError, match=r"train size"):
        split(made([6, 6, 6]), size, key=key)


def test_range_that_overflows(key):
    data = made([5, 5])
    data.features[:, 2] *= 1e308
    with pytest.raises(DataError, match="'f2'"):
        split(data, 0.5, key=key)


def test_subset(key):
    data = load("digits")
    few = subset(data, 24, key=key)
    assert len(few) == 24
    assert np.bincount(few.targets).min() >= 2
    assert len(subset(data, 3, key=key)) == 3
    with pytest.raises(DataError, match="1 to 1797"):
        subset(data, 1798, key=key)


def test_real_targets_are_split_and_standardised_by_the_training_part():
    data = load("diabetes", regression=True)
    assert data.classes is None
    parts = split(data, 0.5, key=jax.random.key(0))
    assert len(parts.train) == 221
    assert abs(parts.train.targets.mean()) < 1e-12
    np.testing.assert_allclose(parts.train.targets.std(), 1.0, rtol=1e-12)
    back = np.concatenate([p.targets for p in (parts.train, parts.test)])
    back = back * parts.target_scale + parts.target_mean
    np.testing.assert_allclose(np.sort(back), np.sort(data.targets), rtol=1e-12)


def test_numbers_of_classes_are_targets_if_asked_and_real_targets_are_no_classes():
    iris = load("iris")
    real = load("iris", regression=True)
    np.testing.assert_array_equal(real.targets, iris.targets.astype(float))
    with pytest.raises(DataError, match="real targets and no classes"):
        load("diabetes")


@pytest.mark.parametrize(("name", "drawn"), [("digits", 770770505), ("wine", 4289098503)])
def test_the_draws_are_those_of_every_recorded_figure(name, drawn):
    """A split that changes changes every published number."""
    train = split(load(name), 0.5, key=jax.random.key(0)).train
    assert zlib.crc32(train.targets.astype("<i8").tobytes()) == drawn


def test_the_draws_of_real_targets_too():
    parts = split(load("diabetes", regression=True), 0.5, key=jax.random.key(0))
    train, every = parts.train.targets, np.concatenate([parts.train.targets, parts.test.targets])
    ranks = np.searchsorted(np.unique(np.round(every, 9)), np.round(train, 9) - 1e-9)
    assert zlib.crc32(ranks.astype("<i8").tobytes()) == 167840065


def test_real_targets_whose_spread_overflows_are_refused():
    data = load("diabetes", regression=True)
    huge = dataclasses.replace(data, targets=data.targets * 1e300)
    with pytest.raises(DataError, match="target cannot be standardised"):
        split(huge, 0.5, key=jax.random.key(0))
    wide = dataclasses.replace(data, features=data.features * 1e307)
    with pytest.raises(DataError, match="column 'age' cannot be standardised"):
        split(wide, 0.5, key=jax.random.key(0))
