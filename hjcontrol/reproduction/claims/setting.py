r"""The data that several published checks share, so that a claim says what it changes.

`LINE`   four atoms on a line, t = 1                         sec. "verify", the identity table
`PLANE`  sixteen atoms in the plane, two groups of eight     the phase diagrams; RandomState(42)
`SCORES` twelve scores                                       the page's particle-and-wave profile
"""

import numpy as np

LINE_Y = np.array([[-1.5], [-0.5], [0.5], [1.5]])
LINE_G = np.array([1.0, 0.3, 0.3, 1.0])
LINE_X = np.linspace(-2.5, 2.5, 500)[:, None]
LINE_EPS = (1.0, 0.5, 0.2, 0.1, 0.05)

SCORES = np.array([0.2, 0.6, 1.1, 1.7, 2.2, 2.0, 1.3, 0.9, 1.4, 1.8, 1.1, 0.5])


def plane() -> tuple[np.ndarray, np.ndarray]:
    """Atoms `(16, 2)` and their values: 0 for the first eight, 1 for the others."""
    rng = np.random.RandomState(42)
    low = 0.4 * rng.randn(8, 2) - 1.0
    high = 0.4 * rng.randn(8, 2) + 1.0
    return np.vstack([low, high]), np.repeat([0.0, 1.0], 8)


def cloud(seed: int, atoms: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """A layer of standard normal weights `(N, d)` and biases `(N,)`."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((atoms, dimension)), rng.standard_normal(atoms)
