"""The published one-dimensional fit, temperature included: w = (u^2 + 3)/(u + 1)^2, log-log.

rms log error: two terms 2.385574e-5, three 2.457576e-6, four 3.829502e-7; three affine pieces 2.3178e-3.
"""

import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.solvers.convex import fit_jointly, fit_lse

U = np.geomspace(1.0, 3.0, 101)
X, Y = np.log(U)[:, None], np.log((U**2 + 3) / (U + 1) ** 2)


@pytest.mark.parametrize(
    ("atoms", "rms", "eps"),
    [(2, 2.385574e-5, 0.2906), (3, 2.457576e-6, 0.1047), (4, 3.829502e-7, 0.0557)],
)
def test_terms_and_temperature_of_the_published_fit(atoms, rms, eps):
    fit = fit_lse(X, Y, "fit", max_atoms=atoms, starts=5)
    assert fit.native.rms == pytest.approx(rms, rel=1e-4)
    assert float(fit.native.eps) == pytest.approx(eps, rel=1e-2)
    assert (fit.native.ends <= 1.01 * rms).all()  # every start
    assert float(fit.objective) == pytest.approx(0.5 * rms**2, rel=1e-3)
    layer = hj.deformation.LSE(*fit.native.layer, fit.native.eps)
    off = np.array([float(layer(x)) for x in X[::10]]) - Y[::10]
    assert np.abs(off).max() < 6 * rms
    assert fit.native.note == "critical point, not global"


def test_at_another_temperature_the_error_is_larger():
    warm = fit_jointly(X, Y, 0.3, atoms=3, starts=3)
    assert warm.native.rms > 5 * 2.457576e-6


def test_max_affine_from_every_start():
    fit = fit_jointly(X, Y, 0.0, atoms=3)
    assert (fit.native.ends <= 2.3556e-3).all()
    assert float(fit.objective) == pytest.approx(0.5 * fit.native.rms**2, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": "cold"}, "a number >= 0 or 'fit'; found 'cold'"),
        ({"eps": -1.0}, "`eps` must be finite and >= 0"),
        ({"atoms": 0}, "`atoms` must be >= 1"),
        ({"atoms": 102}, "as many samples as atoms"),
        ({"starts": 0}, "`starts` must be >= 1"),
        ({"inputs": X[:5]}, "targets"),
    ],
)
def test_bad_input_is_refused(change, words):
    given = {"inputs": X, "targets": Y, "eps": "fit", "atoms": 2} | change
    with pytest.raises(ValueError, match=words):
        fit_jointly(**given)
