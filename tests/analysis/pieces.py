"""Layers that every question here is put to: one shape, so that their programs compile once."""

import jax.numpy as jnp
import numpy as np

from hjcontrol.layers import LSE, ClassHead, LogitHead

ATOMS, D = 7, 3


def layer(seed=0, eps=0.3, atoms=ATOMS, d=D):
    """A layer with normal slopes and biases."""
    draw = np.random.default_rng(seed)
    return LSE(draw.normal(size=(atoms, d)), draw.normal(size=atoms), jnp.asarray(eps))


def points(n=16, seed=1, d=D, scale=1.0):
    """Normal samples."""
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=(n, d)))


def deep(seed=0, eps=0.3):
    """A two-layer tanh network with `ATOMS` logits."""
    draw = np.random.default_rng(seed)
    one, two = jnp.asarray(draw.normal(size=(5, D))), jnp.asarray(draw.normal(size=(ATOMS, 5)))
    return LogitHead(lambda x: two @ jnp.tanh(one @ x), jnp.asarray(eps))


def classifier(seed=0, eps=0.3):
    """Three classes over the atoms of `layer`."""
    return ClassHead(layer(seed, eps), [0, 0, 0, 1, 1, 2, 2])
