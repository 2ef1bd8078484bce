"""The linear-quadratic problem by dense linear algebra, in NumPy and with no recursion of Riccati's.

    x_k^i = Phi_k x_0^i + sum_{j<k} Phi_{k,j+1} B_j b_j      J is a quadratic of b: normal equations

Only the samples' means enter the biases, for all samples share them.
"""

import numpy as np


def solve(A, B, inputs, targets, ridge, state=0.0):
    """Optimal biases `(K, m)`, costates `(K+1, n, d)` and `J`."""
    K, d, m = B.shape
    n = len(inputs)
    free, driven = [np.eye(d)], [np.zeros((d, K * m))]  # x_k = free_k x_0 + driven_k b
    for k in range(K):
        step = A[k] @ driven[-1]
        step[:, k * m : (k + 1) * m] += B[k]
        free.append(A[k] @ free[-1])
        driven.append(step)
    mean, goal = inputs.mean(axis=0), targets.mean(axis=0)
    weights = [state] * K + [1.0]
    aims = [np.zeros(d)] * K + [goal]
    normal = ridge * np.eye(K * m)
    right = np.zeros(K * m)
    for weight, aim, L, F in zip(weights, aims, driven, free, strict=True):
        normal += weight * L.T @ L
        right += weight * L.T @ (aim - F @ mean)
    b = np.linalg.solve(normal, right)
    x = [inputs @ F.T + L @ b for L, F in zip(driven, free, strict=True)]
    p = [(x[K] - targets) / n]
    for k in reversed(range(K)):
        p.insert(0, p[0] @ A[k] + state * x[k] / n)
    cost = 0.5 * np.sum((x[K] - targets) ** 2) / n + 0.5 * ridge * b @ b
    cost += 0.5 * state * sum(np.sum(x[k] ** 2) for k in range(K)) / n
    return b.reshape(K, m), np.stack(p), cost


def draw(seed=0, K=5, n=7, d=3, m=2):
    """Matrices and data of a small problem: `A`, `B`, `inputs`, `targets`."""
    draw = np.random.default_rng(seed).normal
    A = np.eye(d) + 0.3 * draw(size=(K, d, d))
    return A, draw(size=(K, d, m)), draw(size=(n, d)), draw(size=(n, d))
