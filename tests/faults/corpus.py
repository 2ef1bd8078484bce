"""The fuzzer's corpus: PROBLEM.toml texts and command lines that once ended in 70, a traceback or a hang,
or might. `benchmarks/fuzz.py` runs all of it, and mutations; the tests run what is refused at once.
"""

SMALL = """data = "iris"
solver = "adam"
max-steps = 2
samples = 12
[network]
width = 2
depth = 1
"""


def changed(old, new):
    return SMALL.replace(old, new)


def more(text):
    return SMALL + text + "\n"


REFUSED = {
    "a list of data": changed('"iris"', '["iris"]'),
    "a list of widths": changed("width = 2", "width = [2]"),
    "a float for a count": changed("width = 2", "width = 2.0"),
    "half a stage": changed("depth = 1", "depth = 1.5"),
    "more memory than there is": changed("width = 2", "width = 2000000000"),
    "more memory than there is, still drawable": changed("width = 2", "width = 300000"),
    "more stages than anybody has": changed("depth = 1", "depth = 2000000000"),
    "a negative width": changed("width = 2", "width = -2"),
    "a true width": changed("width = 2", "width = true"),
    "a date": changed("width = 2", "width = 1979-05-27"),
    "NaN": changed("width = 2", "step = nan"),
    "deep nesting": "a = " + "[" * 5000 + "]" * 5000,
    "deep dotted keys": ".".join("a" * 5000) + " = 1",
    "a list of solvers": changed('"adam"', '["adam"]'),
    "a table for a solver": changed('"adam"', "{a = 1}"),
    "a list of activations": more('activation = ["tanh"]'),
    "a list of costs": more("[costs]\nridge = [1]"),
    "a vector for a strength": more("[costs]\nsmoothing = {strength = [1, 2]}"),
    "text for a strength": more('[costs]\nsmoothing = "a"'),
    "a list of terminal costs": more('[costs]\nterminal = ["a"]'),
    "no kind of set": more("[control-set]\nlower = 1"),
    "bounds of another shape": more('[control-set]\nkind = "box"\nlower = [1, 2]\nupper = [3, 4]'),
    "bounds in words": more('[control-set]\nkind = "box"\nlower = "a"\nupper = "b"'),
    "a true radius": more('[control-set]\nkind = "l2-ball"\nradius = true'),
    "a date for a radius": more('[control-set]\nkind = "l2-ball"\nradius = 1979-05-27'),
    "sets in a list": more('[control-set]\nkind = "by-leaf"\nsets = [1]'),
    "runs of numbers": more('[control-set]\nkind = "by-run"\nsets = [1]'),
    "an abstract set": more('[control-set]\nkind = "abstract-control-set"'),
    "options in a list": more("[options]\nadam = [1]"),
    "a list of tolerances": more("[options.adam]\ntol = [1]"),
    "text for a tolerance": more('[options.adam]\ntol = "x"'),
    "half a sample": more("[options.adam]\nbatch-size = 2.5"),
    "negative samples": more("[options.adam]\nbatch-size = -2"),
    "more samples than there are": more("[options.adam]\nbatch-size = 2000000"),
    "a list of architectures": changed("width = 2\ndepth = 1", 'architecture = ["rnn"]'),
    "half a head": changed("width = 2\ndepth = 1", 'architecture = "transformer"\nheads = 2.5'),
    "no width": changed("width = 2\ndepth = 1", 'architecture = "rnn"\nwidth = 0'),
    "a step in words": changed("width = 2", 'architecture = "residual"\nh = "a"'),
    "a seed beyond 64 bits": changed("samples = 12", "seed = 99999999999999999999"),
    "a number for a column": changed("samples = 12", "target = 3"),
    "no training part": changed("samples = 12", "train-size = 1e-300"),
    "bytes": "\x00\x01",
    "a list of seconds": "every = [1]",
}
LINES = {
    "a time whose square vanishes": ["pde", "--time", "1e-308"],
    "a time whose square overflows": ["pde", "--time", "1e308"],
    "no time": ["pde", "--time", "0"],
    "NaN for a time": ["pde", "--time", "nan"],
    "a viscosity beyond range": ["pde", "--eps", "1e308"],
    "a window beyond range": ["pde", "--window", "1e-308"],
    "no such layer": ["certify", "nothing.npz", "--layer", "x"],
    "a folder for a problem": ["solve", "."],
    "a null character": ["solve", "a\0b"],
    "a device": ["solve", "/dev/zero"],
    "no such command": ["frobnicate"],
    "more atoms than anybody has": ["fit-convex", "--atoms", "99999999999999"],
    "a solver that is none": ["crosscheck", "--solver", "nothing"],
    "a module that exits": ["verify", "--architecture", "exits.py:net", "--data", "iris"],
    "a module that is none": ["verify", "--architecture", "broken.py:net", "--data", "iris"],
    "complex states": ["verify", "--architecture", "net.py:turning", "--data", "iris"],
    "integer states": ["verify", "--architecture", "net.py:counting", "--data", "iris"],
    "a network that is none": ["verify", "--architecture", "net.py:nothing", "--data", "iris"],
    "a network that exits": ["verify", "--architecture", "net.py:leaving", "--data", "iris"],
    "endless recursion": ["verify", "--architecture", "net.py:endless", "--data", "iris"],
}
FILES = {
    "exits.py": "import sys\nsys.exit(0)\n",
    "broken.py": "def (\n",
    "net.py": (
        "import sys\nimport jax.numpy as jnp\n"
        "def turning(n, c): return [lambda x: x[:c] * (1 + 1j)]\n"
        "def counting(n, c): return [lambda x: jnp.arange(c)]\n"
        "def nothing(n, c): return None\n"
        "def leaving(n, c): sys.exit(0)\n"
        "def endless(n, c): return endless(n, c)\n"
    ),
}
