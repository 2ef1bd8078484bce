"""The viscous Hamilton-Jacobi equation whose solution a layer is: `u_t + H(grad u) = eps lap u`."""

__all__ = []
