"""Cone programs: read from cvxpy once, solved, polished, differentiated, measured without units."""
