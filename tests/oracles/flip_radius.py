"""Distance to the nearest point of another class, in the plane, by a polar scan: never too small
by more than the grid, and obviously right."""

import numpy as np


def flip_radius(predict, x, reach, rings=200, angles=180):
    """`predict` of points `(n, 2)`; the smallest ring on which some point has another class."""
    turn = np.linspace(0, 2 * np.pi, angles, endpoint=False)
    away = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    radii = reach * np.arange(1, rings + 1) / rings
    grid = x + (radii[:, None, None] * away[None]).reshape(-1, 2)
    same = np.asarray(predict(grid)).reshape(rings, angles) == predict(x[None])[0]
    hit = np.flatnonzero(~same.all(axis=1))
    return radii[hit[0]] if len(hit) else np.inf
