"""A layer is the argmax of a convex program: `value(z) = max over p in C of p.z - eps Omega(p)`."""

__all__ = []
