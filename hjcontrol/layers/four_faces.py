r"""One layer, four faces: network, max-plus map, viscous PDE, convex program.

    network    f(x) = eps log sum_j exp((W_j.x + b_j)/eps)
    max-plus   f_0(x) = max_j W_j.x + b_j                          0 <= f - f_0 <= eps log N
    equation   u_t + |grad u|^2 = eps lap u,  y_j = 2t W_j, g_j = -b_j - t|W_j|^2:  f + u_raw = |x|^2/(4t)
    program    f(x) = max over pi in the simplex of pi.(W x + b) + eps H(pi)

The time t is a gauge: it is the caller's, and every t > 0 gives another equation face of the same layer.
The heat-normalised u of the same data solves the equation; u_raw misses it by -d eps/(2t).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Record, Told, figure
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import LSE, temperature
from hjcontrol.hamilton_jacobi import (
    InitialData,
    MaxAffine,
    data_of_layer,
    hopf_cole,
    layer_of_data,
)
from hjcontrol.hamilton_jacobi.normalisation import Normalisation
from hjcontrol.layers.certifying import Optimality
from hjcontrol.layers.engines import argmax
from hjcontrol.layers.legendre_dual import LegendreProgram, legendre_program
from hjcontrol.layers.separable import SeparableProgram
from hjcontrol.layers.softmax import Softmax


class Values(NamedTuple):
    """`f(x)` as each face computes it, and the max-plus value. No two share their arithmetic."""

    network: Float[Array, ""]
    equation: Float[Array, ""]  # |x|^2/(4t) - u, u from the atoms
    program: Float[Array, ""]  # the objective at the program's solution
    max_plus: Float[Array, ""]


class Faces(Told, Shown):
    """The four faces of one layer at one time. Every conversion is a method; none refits anything."""

    network: LSE
    t: Float[Array, ""]

    @property
    def eps(self) -> Float[Array, ""]:
        """Temperature, viscosity and regularisation."""
        return self.network.eps

    @property
    def max_plus(self) -> LSE:
        """The layer at `eps = 0`."""
        return LSE(self.network.W, self.network.b, jnp.zeros_like(self.network.eps))

    @property
    def max_affine(self) -> MaxAffine:
        """The max-plus face as initial data of the equation at `eps = 0`."""
        return MaxAffine(self.network.W, self.network.b)

    def data(self, normalisation: Normalisation = "raw") -> InitialData:
        """Initial data at time 0 whose solution at `t`, in that normalisation, is `|x|^2/(4t) - f`."""
        return data_of_layer(
            self.network.W, self.network.b, self.t, eps=self.eps, normalisation=normalisation
        )

    def solution(
        self,
        x: Float[Array, " d"],
        t: Float[ArrayLike, ""] | float | None = None,
        normalisation: Normalisation = "heat",
    ) -> Float[Array, ""]:
        """`u(x, t)` from the atoms `data("raw")`, at the layer's own time or at another."""
        at = self.t if t is None else t
        return hopf_cole(self.data(), x, at, self.eps, normalisation=normalisation)

    def program(self, x: Real[ArrayLike, " d"]) -> SeparableProgram:
        """The program in `pi` whose value is `f(x)`."""
        return Softmax(self.eps).program(self.network.scores(x))

    def legendre(self, q: Real[ArrayLike, " d"]) -> LegendreProgram:
        """The program of `f*(q)`: the layer as a function of slopes."""
        return legendre_program(self.network, q)

    @renamed(tolerance="tol")
    def certify(
        self, x: Real[ArrayLike, " d"], tol: float | Float[Array, ""] | None = None
    ) -> Optimality:
        """Certificate of the Gibbs weights at `x` in the program."""
        return Softmax(self.eps).certify(self.network.scores(x), self.network.weights(x), tol=tol)

    def values(self, x: Float[Array, " d"], engine: str = "newton") -> Values:
        """`f(x)` by each face: formula, atoms of the equation, program by `engine`; and the max-plus.

        `engine` is one of `hjcontrol.layers.argmax`; with `"cvxpy"` on the host, one sample.
        """
        return _values(self, x, engine)

    def as_record(self) -> Record:
        """What this result says of itself."""
        atoms, d = self.network.W.shape
        eps, t, data = float(self.eps), float(self.t), self.data()
        low, high = float(jnp.min(data.values)), float(jnp.max(data.values))
        between = f"[{figure(low)}, {figure(high)}]"
        return Record(
            f"One layer of {atoms} atoms in dimension {d}",
            f"eps = {eps:g}, read at t = {t:g}",
            facts={
                "network": f"f(x) = {eps:g} log sum exp((W x + b)/{eps:g})",
                "max-plus": f"f_0 <= f <= f_0 + {figure(eps * float(jnp.log(atoms)))}   (eps log N)",
                "equation": f"u_t + |grad u|^2 = {eps:g} lap u from {atoms} atoms, values in {between}; "
                f"the raw sum misses it by {figure(-d * eps / (2 * t))}",
                "program": f"max over the simplex of pi.(W x + b) + {eps:g} H(pi)",
            },
        )


def _values(four: Faces, x: Float[Array, " d"], engine: str = "newton") -> Values:
    square = jnp.sum(x**2) / (4 * four.t)
    layer, z = Softmax(four.eps), four.network.scores(x)
    pi = argmax(layer, z, engine)
    pi = pi / jnp.sum(pi)  # a host solver's answer lies on the simplex to its tolerance only
    return Values(
        network=four.network(x),
        equation=square - four.solution(x, normalisation="raw"),
        program=z @ pi - layer.conjugate(jnp.maximum(pi, 0.0)),
        max_plus=four.max_plus(x),
    )


@admits(t="> 0", eps=">= 0")
def faces(
    layer: Any,
    t: Real[ArrayLike, ""] | float,
    eps: Real[ArrayLike, ""] | float | None = None,
) -> Faces:
    """The four faces of a layer.

    **Arguments:**

    - `layer`: whichever face there is: an `LSE`; a pair `(W, b)` (`AffineWeights`, say);
      `InitialData`, read as raw at `t`; a `MaxAffine`; the
      `LegendreProgram` of a layer.
    - `t`: the time at which the layer is read as a solution, > 0. A gauge: not a property of the layer.
    - `eps`: temperature >= 0. Needed where `layer` has none; replaces the one that it has.

    **Returns:** [`Faces`][hjcontrol.layers.Faces].

    **Raises:** `ValueError` for something that is none of these, a missing or negative `eps`, `t <= 0`,
    shapes that disagree, weights that are not finite.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> values = hj.faces((jnp.eye(2), jnp.zeros(2)), 1.0, 0.1).values(jnp.array([0.3, 0.1]))
        >>> bool(abs(values.network - values.equation) < 1e-12)
        True
    """
    own = getattr(layer, "eps", None)
    if eps is None and own is None:
        raise ValueError(
            f"faces: a {type(layer).__name__} has no temperature of its own. Pass `eps=`."
        )
    eps = temperature(own if eps is None else eps)
    network = LSE(*_weights(layer, t, eps), eps)
    data_of_layer(network.W, network.b, t)  # refuses weights that are not finite
    return Faces(network, jnp.asarray(t, network.W.dtype))


def _weights(layer: Any, t: Any, eps: Array) -> tuple[Array, Array]:
    if isinstance(layer, (LSE, LegendreProgram)):
        return layer.W, layer.b
    if isinstance(layer, InitialData):
        layer = layer_of_data(layer, t, eps=eps)
        return layer.W, layer.b
    if isinstance(layer, MaxAffine):
        return layer.slopes, layer.offsets
    if isinstance(layer, tuple) and len(layer) == 2:
        W, b = (jnp.asarray(a) for a in layer)
        return W, b
    raise ValueError(
        "faces: an LSE, a pair (W, b), InitialData, a MaxAffine or a LegendreProgram is needed; "
        f"found {type(layer).__name__}."
    )
