"""Hirota's form by differentiating the partition function: nested derivatives, no formula.

tau = e^phi:  (D_x^4 - 4 D_x D_s + 3 D_y^2) tau.tau / tau^2
              = 2 phi_xxxx + 12 phi_xx^2 - 8 phi_xs + 6 phi_yy
"""

import functools

import jax


def hirota(phi, x, y, s):
    """`phi(x, y, s)` a scalar function; the form over tau^2, and the field `2 phi_xx`."""
    d = lambda f, *axes: functools.reduce(lambda g, a: jax.grad(g, argnums=a), axes, f)
    xx = d(phi, 0, 0)(x, y, s)
    form = 2 * d(phi, 0, 0, 0, 0)(x, y, s) + 12 * xx**2
    return form - 8 * d(phi, 0, 2)(x, y, s) + 6 * d(phi, 1, 1)(x, y, s), 2 * xx
