"""JAX primitives that the replay into CasADi refuses, each with the reason."""

_BECAUSE = {
    "CasADi has no complex numbers": "complex conj fft imag real",
    "it moves data between devices": """
        all_gather all_to_all axis_index device_put pmax pmin ppermute psum ragged_all_to_all
        sharding_constraint
    """,
    "what is drawn must not depend on states or weights": """
        random_bits random_fold_in random_gamma random_seed random_split rng_bit_generator
        rng_uniform threefry2x32
    """,
    "it works on the bits of numbers": """
        bitcast_convert_type clz eq_to nextafter population_count reduce_xor shift_left
        shift_right_arithmetic shift_right_logical
    """,
    "CasADi has no such special function": """
        bessel_i0e bessel_i1e erf_inv igamma igamma_grad_a igammac polygamma
        regularized_incomplete_beta zeta
    """,
    "CasADi has no such factorisation of symbols": """
        eig hessenberg householder_product qr schur svd tridiagonal tridiagonal_solve
    """,
    "it writes to memory": "after_all create_token empty2 get swap",
    "its result is approximate; use `jax.lax.top_k`": "approx_top_k",
    "its operation is not known; use a named one, such as `jnp.sum` or a pool of maxima": """
        reduce reduce_window
    """,
    "it is a derivative of a pool; differentiate outside the dynamics": """
        select_and_gather_add select_and_scatter select_and_scatter_add
    """,
}
REFUSED: dict[str, str] = {n: why for why, names in _BECAUSE.items() for n in names.split()}

# Supported in part: what a refusal of one use says.
IN_PART: dict[str, str] = {
    "eigh": "eigenvalues of symbols are replayed for one 2 x 2 matrix, and eigenvectors never: "
    "nothing fixes their sign",
    "scatter": "where it writes depends on a symbol; use `jnp.where` over all places",
    "sort": "one key is replayed, not several",
    "while": "it takes too many steps; use `jax.lax.scan`",
}
