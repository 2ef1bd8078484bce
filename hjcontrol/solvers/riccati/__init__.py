"""Riccati: linear-quadratic sweeps, and the Gauss-Newton and DDP methods that are made of them."""
