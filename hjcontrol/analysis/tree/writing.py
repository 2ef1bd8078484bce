"""A model tree on paper: indented rules, Graphviz, JSON (with every bit of every number)."""

import json
from typing import Any

import numpy as np

FIELDS = ("left", "right", "a", "c", "coef", "intercept", "label", "open")


def affine(a: np.ndarray, c: float, names: list[str], digits: int) -> str:
    """`a.x + c` in words: terms that are exactly zero are left out."""
    number = lambda v: f"{abs(v):.{digits}g}"
    times = lambda v: "" if number(v) == "1" else number(v) + " "
    terms = [(v, n) for v, n in zip(a, names, strict=True) if v != 0]
    text = "".join(
        f"{' - ' if v < 0 else ' + ' if k else ''}{times(v)}{n}" for k, (v, n) in enumerate(terms)
    )
    if not terms:
        return f"{c:.{digits}g}"
    return text.removeprefix(" ") + (f" {'-' if c < 0 else '+'} {number(c)}" if c else "")


def _names(tree: Any, names: list[str] | None) -> list[str]:
    d = tree.a.shape[1]
    names = [f"x{k}" for k in range(d)] if names is None else [str(n) for n in names]
    if len(names) != d:
        raise ValueError(f"model tree: {d} names of inputs are needed; found {len(names)}.")
    return names


def _leaf(tree: Any, k: int, names: list[str], digits: int) -> str:
    if tree.open[k]:
        return "open: the budget ended here"
    if tree.decides:
        return f"class {tree.label[k]}"
    rows = zip(tree.coef[k], tree.intercept[k], strict=True)
    values = ", ".join(affine(a, e, names, digits) for a, e in rows)
    winner = f"  (piece {tree.label[k]})" if tree.label[k] >= 0 else ""
    return f"y = {values}{winner}"


def rules(tree: Any, names: list[str] | None, digits: int) -> str:
    """The tree as `if ... else ...`, one line a node."""
    names, lines = _names(tree, names), []
    todo = [(0, 0, "")]
    while todo:
        k, depth, head = todo.pop()
        indent = "|   " * depth
        if tree.left[k] < 0:
            lines.append(f"{indent}{head}{_leaf(tree, k, names, digits)}")
            continue
        test = affine(tree.a[k], 0.0, names, digits)
        if head:
            lines.append(f"{indent}{head.rstrip()}")
            indent, depth = indent + "|   ", depth + 1
        todo.append((int(tree.left[k]), depth, "else: "))
        todo.append((int(tree.right[k]), depth, f"if {test} >= {0.0 - tree.c[k]:.{digits}g}: "))
    return "\n".join(lines)


def dot(tree: Any, names: list[str] | None, digits: int) -> str:
    """Graphviz: boxes for tests, rounded boxes for leaves; the right edge is where the test holds."""
    names = _names(tree, names)
    quoted = lambda text: json.dumps(text, ensure_ascii=False)
    lines = ["digraph tree {", "  node [shape=box, fontname=Helvetica];"]
    for k in range(len(tree.left)):
        if tree.left[k] < 0:
            lines.append(f"  n{k} [style=rounded, label={quoted(_leaf(tree, k, names, digits))}];")
            continue
        test = f"{affine(tree.a[k], 0.0, names, digits)} >= {0.0 - tree.c[k]:.{digits}g}"
        lines.append(f"  n{k} [label={quoted(test)}];")
        lines.append(f'  n{k} -> n{tree.left[k]} [label="no"];')
        lines.append(f'  n{k} -> n{tree.right[k]} [label="yes"];')
    return "\n".join([*lines, "}"])


def to_json(tree: Any) -> str:
    """Arrays as lists; Python writes floats so that they read back equal."""
    box = None if tree.box is None else tree.box.tolist()
    arrays = {name: getattr(tree, name).tolist() for name in FIELDS}
    return json.dumps(
        {
            "format": "hjcontrol model tree",
            "version": 1,
            **arrays,
            "box": box,
            "decides": tree.decides,
            "measured": tree.measured,
        }
    )


def from_json(text: str) -> dict[str, Any]:
    """The arguments of `ModelTree`."""
    try:
        found = json.loads(text)
        if found["format"] != "hjcontrol model tree" or found["version"] != 1:
            raise ValueError(f"format {found['format']!r}, version {found['version']!r}")
        nodes = len(found["left"])
        arrays = {name: np.array(found[name]) for name in FIELDS}
        d = arrays["a"].shape[1]
        shapes = {
            "left": (nodes,), "right": (nodes,), "a": (nodes, d), "c": (nodes,),
            "coef": (nodes, arrays["coef"].shape[1], d), "label": (nodes,), "open": (nodes,),
            "intercept": arrays["coef"].shape[:2],
        }  # fmt: skip
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        if wrong:
            raise ValueError(f"{wrong[0]} has shape {arrays[wrong[0]].shape}")
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"from_json: a model tree's JSON, version 1, is needed; found {error}."
        ) from error
    box = None if found["box"] is None else np.array(found["box"])
    return {
        **{n: v for n, v in arrays.items() if n != "open"},
        "open_": arrays["open"],
        "box": box,
        "decides": bool(found["decides"]),
        "measured": found.get("measured"),
    }
