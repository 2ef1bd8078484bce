"""Finite-horizon LQR as one system of linear equations: states, controls and multipliers together.

stationarity of  J + sum_k lam_{k+1}.(A x + B u + c - x_{k+1}) + lam_0.(start - x_0),  and feasibility
"""

import numpy as np

NAMES = ("A", "B", "c", "Q", "S", "R", "q", "r")


def draw(seed, K, d, m):
    """A convex problem with cross and affine terms: stages by name, terminal `Q`, `q`, and a start."""
    normal = np.random.default_rng(seed).normal

    def positive(k, size):
        root = normal(size=(k, size, size))
        return root @ root.transpose(0, 2, 1) / size + 0.5 * np.eye(size)

    A = normal(size=(K, d, d))
    A = A / np.linalg.norm(A, 2, axis=(1, 2))[:, None, None]
    W = positive(K, d + m)
    Q, S, R = W[:, :d, :d], W[:, :d, d:], W[:, d:, d:]
    q, r = normal(size=(K, d)), normal(size=(K, m))
    stages = dict(
        zip(NAMES, (A, normal(size=(K, d, m)), normal(size=(K, d)), Q, S, R, q, r), strict=True)
    )
    return stages, positive(1, d)[0], normal(size=d), normal(size=d)


def solve(stages, Q, q, start):
    """States `(K+1, d)`, controls `(K, m)` and costates `(K+1, d)`."""
    K, d, m = stages["B"].shape
    X, U = (K + 1) * d, K * m
    size = 2 * X + U
    matrix, right = np.zeros((size, size)), np.zeros(size)
    x = [slice(k * d, (k + 1) * d) for k in range(K + 1)]
    u = [slice(X + k * m, X + (k + 1) * m) for k in range(K)]
    lam = [slice(X + U + k * d, X + U + (k + 1) * d) for k in range(K + 1)]
    eye = np.eye(d)
    matrix[lam[0], x[0]], right[lam[0]] = eye, start
    for k in range(K):
        A, B, c, Qk, S, R, qk, r = (stages[name][k] for name in NAMES)
        matrix[x[k], x[k]], matrix[x[k], u[k]], matrix[x[k], lam[k + 1]] = Qk, S, A.T
        matrix[x[k], lam[k]], right[x[k]] = -eye, -qk
        matrix[u[k], x[k]], matrix[u[k], u[k]], matrix[u[k], lam[k + 1]] = S.T, R, B.T
        right[u[k]] = -r
        matrix[lam[k + 1], x[k]], matrix[lam[k + 1], u[k]] = A, B
        matrix[lam[k + 1], x[k + 1]], right[lam[k + 1]] = -eye, -c
    matrix[x[K], x[K]], matrix[x[K], lam[K]], right[x[K]] = Q, -eye, -q
    z = np.linalg.solve(matrix, right)
    return z[:X].reshape(K + 1, d), z[X : X + U].reshape(K, m), z[X + U :].reshape(K + 1, d)
