"""Right calls of the rooms `hamilton_jacobi`, `layers`, `networks` and `solvers`: see `good_calls`."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from hjcontrol import hamilton_jacobi as hjb
from hjcontrol import layers, networks, solvers
from hjcontrol.solvers import convex, selection
from tests.faults.good_calls import (
    KEY,
    POINT,
    QUADRATIC,
    U,
    X,
    Y,
    _made,
    adam,
    atoms,
    bowl,
    grid,
    imported,
    max_affine,
    problem,
    program,
    soft_layer,
    theta,
    wave,
    weights,
)

_DATA, _GRID, _MAX = (lambda: atoms()), (lambda: grid()), (lambda: max_affine())
_T, _EPS, _R = {"t": 0.5}, {"eps": 0.5}, {"radius": 2.0}
_H = {"H": QUADRATIC}
_LINE = jnp.linspace(-2.0, 2.0, 17)

_HAMILTON_JACOBI = {
    "Anisotropic": _made(hjb.Anisotropic, A=jnp.eye(2)),
    "BoxIndicator": _made(hjb.BoxIndicator, lower=0.0, upper=1.0),
    "Drift": _made(hjb.Drift, c=POINT),
    "Grid": _made(hjb.Grid, lower=(-1.0,), upper=(1.0,), shape=(9,), extrapolation=1),
    "GridScheme": _made(hjb.GridScheme, order="weno5", flux="local", fraction=0.9),
    "InitialData": _made(hjb.InitialData, atoms=X, values=U, masses=jnp.ones(6)),
    "MaxAffine": _made(hjb.MaxAffine, slopes=X, offsets=U),
    "Nonconvex": _made(hjb.Nonconvex, fn=bowl),
    "Norm": _made(hjb.Norm, q=2.0),
    "Power": _made(hjb.Power, a=3.0),
    "Scaled": _made(hjb.Scaled, H=QUADRATIC, c=2.0),
    "UserConvex": _made(hjb.UserConvex, fn=bowl, radius=2.0),
    "as_cvxpy": _made(hjb.as_cvxpy, g=_MAX, x=POINT, **_T, **_H),
    "biconjugate": _made(hjb.biconjugate, points=X, values=U, slopes=Y, x=Y),
    "c_transform": _made(hjb.c_transform, X=X, u=U, **_T, Y=Y),
    "conjugate": _made(hjb.conjugate, f=bowl, q=POINT, **_R),
    "data_of_layer": _made(hjb.data_of_layer, W=X, b=U, **_T, **_EPS, normalisation="raw"),
    "density": _made(
        hjb.density, g=bowl, lower=-jnp.ones(2), upper=jnp.ones(2), n=4, rule="trapezoid"
    ),
    "envelope": _made(hjb.envelope, data=_DATA, **_T, tol=1e-9),
    "evolve": _made(hjb.evolve, K=jnp.zeros((3, 6)), data=_DATA, **_EPS),
    "grid_plan": _made(
        hjb.grid_plan, g=_LINE**2, t=0.01, H=QUADRATIC, eps=0.1, grid=_GRID, max_steps=50
    ),
    "grid_solve": _made(
        hjb.grid_solve, g=_LINE**2, t=0.01, H=QUADRATIC, eps=0.1, grid=_GRID, max_steps=50
    ),
    "hj_prox": _made(hjb.hj_prox, f=bowl, x=POINT, **_T, delta=0.1, key=KEY, samples=8),
    "hopf": _made(hjb.hopf, g_star=bowl, x=POINT, **_T, **_R, **_H),
    "hopf_cole": _made(
        hjb.hopf_cole, data=_DATA, x=POINT, **_T, **_EPS, normalisation="heat", **_H
    ),
    "hopf_cole_batch": _made(
        hjb.hopf_cole_batch, data=_DATA, X=Y, **_T, **_EPS, normalisation="heat"
    ),
    "hopf_cole_smooth": _made(hjb.hopf_cole_smooth, g=bowl, x=POINT, **_T, **_EPS, order=4),
    "hopf_lax": _made(hjb.hopf_lax, data=_DATA, x=POINT, **_T, **_H),
    "hopf_lax_convex": _made(hjb.hopf_lax_convex, g=bowl, x=POINT, **_T, **_R, **_H),
    "hopf_lax_max_affine": _made(hjb.hopf_lax_max_affine, g=_MAX, x=POINT, **_T, **_H),
    "hopf_lax_search": _made(hjb.hopf_lax_search, g=bowl, x=POINT, **_T, **_R, key=KEY, starts=2),
    "hopf_sampled": _made(hjb.hopf_sampled, slopes=X, g_star=U, x=POINT, **_T, **_H),
    "hopf_search": _made(
        hjb.hopf_search, g_star=bowl, x=POINT, **_T, **_R, key=KEY, starts=2, **_H
    ),
    "infimal_convolution": _made(hjb.infimal_convolution, f=bowl, g=bowl, x=POINT, **_R),
    "kernel": _made(hjb.kernel, X=X, Y=Y, **_T, **_EPS, normalisation="heat", **_H),
    "layer_of_data": _made(hjb.layer_of_data, data=_DATA, **_T, **_EPS, normalisation="raw"),
    "legendre": _made(hjb.legendre, points=X, values=U, slopes=Y, **_EPS),
    "log_product": _made(
        hjb.log_product, K=jnp.zeros((3, 6)), L=jnp.zeros((6, 2)), masses=jnp.ones(6), **_EPS
    ),
    "merge": _made(hjb.merge, data=_DATA, **_EPS, tol=0.1),
    "moreau": _made(hjb.moreau, f=bowl, x=POINT, s=0.5, **_R),
    "normaliser": _made(hjb.normaliser, normalisation="raw", data=_DATA, **_T, **_EPS, **_H),
    "pde_residual": _made(hjb.pde_residual, u=wave, x=POINT, **_T, **_EPS, **_H),
    "plane_waves": _made(hjb.plane_waves, W=X, b=U, x=POINT, s=0.5, **_EPS, **_H),
    "prox": _made(hjb.prox, f=bowl, x=POINT, s=0.5, **_R),
    "prox_max_affine": _made(hjb.prox_max_affine, f=_MAX, x=POINT, **_T),
    "prox_separable": _made(hjb.prox_separable, phi=bowl, x=POINT, s=0.5, reach=2.0),
    "recover": _made(hjb.recover, X=X, u=U, **_T, **_EPS, Y=Y, ridge=1e-8, normalisation="heat"),
}

_ONE_EPS = (
    "GELU",
    "Huber",
    "RowSoftmax",
    "SiLU",
    "Softmax",
    "Softplus",
    "Sparsemax",
    "Tanh",
    "ReLU",
)
_LAYERS = {name: _made(getattr(layers, name), **_EPS) for name in _ONE_EPS} | {
    "Attention": _made(layers.Attention, **_EPS, form="dot"),
    "CappedSimplex": _made(layers.CappedSimplex, **_EPS, k=2),
    "ClassHead": _made(
        layers.ClassHead, head=lambda: soft_layer(), classes=jnp.array([0, 0, 0, 1, 1, 1])
    ),
    "Clip": _made(layers.Clip, **_EPS, lo=-1.0, hi=1.0),
    "Entmax": _made(layers.Entmax, **_EPS, alpha=1.5),
    "GroupSoftThreshold": _made(layers.GroupSoftThreshold, **_EPS, lam=1.0),
    "BallProjection": _made(layers.BallProjection, **_EPS, radius=1.0),
    "LeakyReLU": _made(layers.LeakyReLU, **_EPS, slope=0.1),
    "LSE": _made(layers.LSE, W=X, b=U, **_EPS),
    "legendre_as_cvxpy": _made(layers.legendre_as_cvxpy, f=lambda: soft_layer(), q=POINT),
    "legendre_gap": _made(layers.legendre_gap, f=lambda: soft_layer(), x=POINT, q=POINT),
    "legendre_point": _made(layers.legendre_point, f=lambda: soft_layer(), q=POINT, steps=60),
    "legendre_program": _made(layers.legendre_program, f=lambda: soft_layer(), q=POINT),
    "legendre_value": _made(layers.legendre_value, f=lambda: soft_layer(), q=POINT),
    "LogitHead": _made(layers.LogitHead, network=bowl, **_EPS),
    "AffineSet": _made(layers.AffineSet, **_EPS, A=X[:2], b=jnp.ones(2)),
    "BinaryEntropy": _made(layers.BinaryEntropy, lo=0.0, hi=1.0),
    "HalfSpace": _made(layers.HalfSpace, **_EPS, a=POINT, b=1.0),
    "L1BallProjection": _made(layers.L1BallProjection, **_EPS, radius=1.0),
    "Potential": _made(layers.Potential, phi=bowl, lo=-1.0, hi=1.0),
    "Separable": _made(layers.Separable, phi=layers.BinaryEntropy(), **_EPS, total=1.0),
    "Transport": _made(layers.Transport, **_EPS, rows=jnp.ones(2), columns=jnp.ones(2)),
    "Tsallis": _made(layers.Tsallis, alpha=1.5),
    "birkhoff": _made(layers.birkhoff, n=2, **_EPS),
    "Permutahedron": _made(layers.Permutahedron, **_EPS, anchors=jnp.array([3.0, 2.0, 1.0])),
    "Pool": _made(layers.Pool, **_EPS, window=(2,), stride=(2,)),
    "Cones": _made(layers.Cones, zero=1, nonneg=2),
    "ConicProgram": _made(
        layers.ConicProgram,
        P=jnp.eye(2),
        q=POINT,
        A=-jnp.eye(2),
        b=jnp.zeros(2),
        cones=layers.Cones(nonneg=2),
    ),
    "ProgramLayer": _made(layers.ProgramLayer, problem=lambda: program(), engine="auto"),
    "QuadraticProgram": _made(
        layers.QuadraticProgram,
        P=jnp.eye(2),
        q=POINT,
        A=jnp.ones((1, 2)),
        b=jnp.ones(1),
        G=-jnp.eye(2),
        h=jnp.zeros(2),
    ),
    "SoftThreshold": _made(layers.SoftThreshold, **_EPS, lam=1.0),
    "build": _made(layers.build, name="softmax", **_EPS),
    "certify": _made(
        layers.certify,
        program=layers.Softmax(0.5).program(POINT),
        candidate=jnp.array([0.5, 0.5]),
        tol=1e-9,
    ),
    "commuting_square": _made(
        layers.commuting_square,
        g=bowl,
        points=X,
        t=0.5,
        eps=[0.5, 0.1],
        nodes=[3, 5],
        radius=2.0,
        lipschitz=1.0,
        limit=bowl,
    ),
    "compare_gradients": _made(
        layers.compare_gradients, layer=layers.Softmax(0.5), z=POINT, tol=1e-9
    ),
    "faces": _made(layers.faces, layer=lambda: soft_layer(), t=0.5),
    "isotonic": _made(layers.isotonic, y=POINT),
    "key_norms": _made(layers.key_norms, k=X),
    "soft_rank": _made(layers.soft_rank, x=POINT, **_EPS),
    "soft_sort": _made(layers.soft_sort, x=POINT, **_EPS),
    "argmax": _made(layers.argmax, layer=layers.Softmax(0.5), z=POINT, engine="closed"),
    "Softmax.__call__": _made(layers.Softmax(0.5), z=POINT),
    "Softmax.value": _made(layers.Softmax(0.5).value, z=POINT),
    "Softplus.__call__": _made(layers.Softplus(0.5), z=POINT),
    "LSE.__call__": _made(lambda: soft_layer().__call__, x=POINT),
}

_TWO, _WIDE = {"in_size": 2, "out_size": 3}, {"in_size": 2, "width": 3}
_NETWORKS = {
    "GRU": _made(networks.GRU, **_WIDE),
    "LSTM": _made(networks.LSTM, **_WIDE),
    "RNN": _made(networks.RNN, **_WIDE, activation=jnp.tanh),
    "Block": _made(
        networks.Block,
        attention=networks.SelfAttention(4, 2),
        feed_forward=networks.FeedForward(4, 8),
        norm=networks.LayerNorm(4),
        order="pre",
    ),
    "Chain": _made(networks.Chain, stages=[networks.Dense(2, 2)], state=POINT),
    "Dense": _made(networks.Dense, **_TWO, units=jnp.tanh),
    "DiagonalSSM": _made(networks.DiagonalSSM, **_WIDE, h=0.5),
    "Driven": _made(networks.Driven, A=jnp.eye(2), B=jnp.ones((2, 3))),
    "Embed": _made(networks.Embed, tokens=3, **_WIDE),
    "FeedForward": _made(networks.FeedForward, width=2, hidden=3, units=jnp.tanh),
    "Flow": _made(
        networks.Flow,
        drift=networks.Dense(2, 2),
        t1=1.0,
        t0=0.0,
        control="constant",
        knots=2,
        max_steps=64,
    ),
    "FreeStep": _made(networks.FreeStep, drift=networks.Dense(2, 2), start=0.5),
    "FunctionStage": _made(networks.FunctionStage, function=wave, reads="nothing"),
    "LayerNorm": _made(networks.LayerNorm, width=2, delta=1e-5),
    "LogSemiring": _made(networks.LogSemiring, width=2, **_EPS),
    "LSEUnits": _made(networks.LSEUnits, atoms=3, **_EPS),
    "ModuleStage": _made(
        networks.ModuleStage, module=lambda: eqx.nn.Linear(2, 2, key=KEY), reads="nothing"
    ),
    "ObservedFlow": _made(networks.ObservedFlow, drift=networks.Dense(2, 2), t1=1.0),
    "Seen": _made(networks.Seen, times=jnp.array([[0.5, 1.0]]), inputs=None),
    "Pointwise": _made(networks.Pointwise, activation=jnp.tanh),
    "Residual": _made(networks.Residual, drift=networks.Dense(2, 2), h=0.5),
    "Run": _made(networks.Run, stage=networks.Dense(2, 2), length=2, tied=False),
    "SelfAttention": _made(networks.SelfAttention, width=4, num_heads=2, **_EPS, form="dot"),
    "soft_maximum": _made(networks.soft_maximum, in_size=2, atoms=3, **_EPS),
    "SoftplusUnits": _made(networks.SoftplusUnits, **_EPS),
    "StateSpace": _made(networks.StateSpace, **_WIDE, h=0.5),
    "StochasticResidual": _made(
        networks.StochasticResidual, drift=networks.Dense(2, 2), h=0.5, nu=0.1
    ),
    "Trained": _made(
        networks.Trained,
        chain=lambda: imported().chain,
        weights=lambda: imported().weights,
        labels=("a", "b"),
    ),
    "from_model": _made(
        networks.from_model,
        model=lambda: [(np.eye(2), np.zeros(2)), (np.ones((2, 2)), np.zeros(2))],
        activation="relu",
        labels=("a", "b"),
    ),
    "Tied": _made(networks.Tied, piece=networks.Dense(2, 2), times=2),
    "advance": _made(networks.advance, stage=networks.Dense(2, 2), x=POINT, theta=lambda: theta()),
    "architecture": _made(networks.architecture, name="residual", in_size=2, classes=2),
    "as_stage": _made(networks.as_stage, piece=networks.Dense(2, 2)),
    "brownian": _made(networks.brownian, key=KEY, samples=3, steps=2, shape=(2,)),
    "depth_bound": _made(
        networks.depth_bound,
        stages=[networks.Dense(2, 2, networks.SoftplusUnits(0.5))],
        thetas=lambda: [theta()],
    ),
    "free_horizon": _made(networks.free_horizon, drift=networks.Dense(2, 2), count=3, start=0.5),
    "gelu": _made(networks.gelu, a=POINT),
    "lift": _made(networks.lift, **_WIDE),
    "readout": _made(networks.readout, width=2, out_size=3),
    "scatter": _made(networks.scatter, particles=3),
    "soft_mean": _made(networks.soft_mean, phi=bowl, **_EPS),
    "without_idle_stages": _made(
        networks.without_idle_stages, chain=lambda: problem().chain, weights=lambda: weights()
    ),
}

_SOLVERS = {
    "AugmentedLagrangian": _made(
        lambda: solvers.AugmentedLagrangian, inner=lambda: solvers.Newton(), tol=1e-8, rho=10.0
    ),
    "Checkpoint": _made(solvers.Checkpoint, folder="never", every=1.0, keep=2),
    "Direct": _made(
        lambda: solvers.Direct,
        transcription="multiple",
        tol=1e-8,
        degree=2,
        elements=2,
        max_steps=5,
    ),
    "DiscreteMSA": _made(solvers.DiscreteMSA, rho=0.5, memory=0.9, sparsity=0.0, batch_size=2),
    "ExtendedMSA": _made(
        solvers.ExtendedMSA, rho=1.0, adaptive=True, inner="auto", steps=5, tol=1e-7
    ),
    "Gradient": _made(solvers.Gradient, optimiser=lambda: adam(), tol=1e-7, batch_size=2),
    "MSA": _made(solvers.MSA, inner="auto", steps=5, tol=1e-7, batch_size=2),
    "Newton": _made(solvers.Newton, tol=1e-8, curvature="exact", switch=1e-3, max_krylov=10),
    "Riccati": _made(
        lambda: solvers.Riccati, curvature="ddp", tol=1e-8, switch=0.01, feedback=True
    ),
    "Shooting": _made(solvers.Shooting, segments=2, homotopy=False, tol=1e-9),
    "by_name": _made(solvers.by_name, name="newton"),
    "run": _made(
        lambda: solvers.run,
        problem=lambda: problem(),
        solver=solvers.Newton(),
        weights=lambda: weights(),
        max_steps=0,
    ),
    "sweep": _made(
        lambda: solvers.sweep,
        make_problem=lambda: lambda ridge: problem(),
        grid=lambda: {"ridge": [0.1]},
        solver=solvers.Newton(),
        key=KEY,
        max_steps=0,
    ),
    "select": _made(solvers.select, problem=lambda: problem()),
    "selection.admit": _made(
        lambda: selection.admit, problem=lambda: problem(), solver=solvers.Newton()
    ),
    "solve": _made(
        solvers.solve,
        problem=lambda: problem(),
        solver=solvers.Newton(),
        init=lambda: weights(),
        max_steps=1,
        throw=False,
        resume=False,
    ),
    "as_nlp": _made(
        lambda: solvers.as_nlp,
        problem=lambda: problem(),
        init=lambda: weights(),
        degree=2,
        elements=2,
    ),
    "convex.ConvexRegression": _made(lambda: convex.ConvexRegression, inputs=X, targets=U),
    "convex.DifferenceOfConvex": _made(
        lambda: convex.DifferenceOfConvex,
        inputs=X,
        targets=U,
        atoms=(2, 2),
        eps=0.1,
        delta=0.1,
        ridge=0.1,
    ),
    "convex.DifferenceOfMaxAffine": _made(
        lambda: convex.DifferenceOfMaxAffine,
        inputs=X,
        targets=U,
        atoms=(2, 2),
        delta=0.1,
        ridge=0.1,
    ),
    "convex.GatedReLU": _made(
        lambda: convex.GatedReLU, inputs=X, targets=U, gates=jnp.eye(2), penalty=0.1
    ),
    "convex.HopfCole": _made(
        lambda: convex.HopfCole, inputs=X, targets=U, slopes=Y, eps=0.5, loss="squared"
    ),
    "convex.SoftmaxReadout": _made(
        lambda: convex.SoftmaxReadout,
        inputs=X,
        targets=lambda: np.arange(6) % 2,
        ridge=0.1,
        num_classes=2,
    ),
    "convex.fit_jointly": _made(
        lambda: convex.fit_jointly, inputs=X, targets=U, eps="fit", atoms=2, starts=2, max_steps=9
    ),
    "convex.fit_lse": _made(
        lambda: convex.fit_lse,
        inputs=X,
        targets=U,
        eps=0.5,
        max_atoms=2,
        radius=1.0,
        max_steps=1,
        tol=0.1,
    ),
    "convex.sample_gates": _made(lambda: convex.sample_gates, d=2, count=3, seed=0),
}

THEORY = {
    f"{room}.{name}": entry
    for room, entries in (
        ("hamilton_jacobi", _HAMILTON_JACOBI),
        ("layers", _LAYERS),
        ("networks", _NETWORKS),
        ("solvers", _SOLVERS),
    )
    for name, entry in entries.items()
}
