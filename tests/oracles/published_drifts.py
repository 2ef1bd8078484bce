"""The right sides x' = f(x, u) of published control problems, of `m`: `jax.numpy` or `casadi`."""


def rayleigh(m, x, u):
    return [x[1], -x[0] + x[1] * (1.4 - 0.14 * x[1] ** 2) + 4 * u[0]]


def van_der_pol(m, x, u):
    return [(1 - x[1] ** 2) * x[0] - x[1] + u[0], x[0]]


def fishing(m, x, u):
    caught = [0.4 * x[0] * u[0], 0.2 * x[1] * u[0]]
    return [x[0] - x[0] * x[1] - caught[0], -x[1] + x[0] * x[1] - caught[1]]


def goddard(m, x, u):
    r, v, mass = x
    drag = 310 * v**2 * m.exp(-500 * (r - 1))
    return [v, (3.5 * u[0] - drag) / mass - 1 / r**2, -7 * u[0]]


def cart_pole(m, x, u):
    _, angle, speed, turn = x
    cart, pole, length, g = 1.0, 0.3, 0.5, 9.81
    s, c = m.sin(angle), m.cos(angle)
    whole = cart + pole * (1 - c**2)
    push = length * pole * s * turn**2 + u[0] + pole * g * c * s
    fall = length * pole * c * s * turn**2 + u[0] * c + (cart + pole) * g * s
    return [speed, turn, push / whole, -fall / (length * whole)]


def robot_arm(m, x, u):
    r, _, phi, fast, turn, tilt = x
    own = ((5 - r) ** 3 + r**3) / 3
    return [fast, turn, tilt, u[0] / 5, u[1] / (own * m.sin(phi) ** 2), u[2] / own]


def brachistochrone(m, x, u):
    return [x[2] * m.sin(u[0]), -x[2] * m.cos(u[0]), 9.80665 * m.cos(u[0])]


def batch(m, x, u):
    return [-(u[0] + u[0] ** 2 / 2) * x[0], u[0] * x[0]]


def catalyst(m, x, u):
    exchange = u[0] * (10 * x[1] - x[0])
    return [exchange, -exchange - (1 - u[0]) * x[1]]


def boat(m, x, u):
    return [m.cos(u[0]) - x[1], m.sin(u[0])]


def orbit(m, x, u):
    r, out, around, mass = x
    pull = [0.1405 * m.sin(u[0]) / mass, 0.1405 * m.cos(u[0]) / mass]
    return [out, around**2 / r - 1 / r**2 + pull[0], -out * around / r + pull[1], -0.0749]


def crane(m, x, u):
    _, rope, swing, run, lift, turn = x
    fall = -(u[0] + 27.0756 * swing + 2 * lift * turn) / rope
    return [run, lift, turn, u[0] + 17.2656 * swing, u[1], fall]


def heated(m, x, u):
    made = 4000 * m.exp(-25 / u[0]) * x[0] ** 2  # temperature in hundreds of kelvin
    return [-made, made - 620000 * m.exp(-50 / u[0]) * x[1]]


def egerstedt(m, x, u):
    a, b = x
    return [
        -u[0] * a + u[1] * (a + b) + u[2] * (a - b),
        u[0] * (a + 2 * b) + u[1] * (a - 2 * b) + u[2] * (a + b),
    ]
