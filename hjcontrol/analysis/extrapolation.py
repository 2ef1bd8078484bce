"""extrapolation"""
