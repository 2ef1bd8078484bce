"""Regions by vertices and directions, against SciPy's linear programs and Qhull's vertices."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial import HalfspaceIntersection

from hjcontrol.analysis.tree import generators, growth, model_tree, regions
from hjcontrol.analysis.tree.regions import everywhere, halves, interior, reached


def reaches(A, c, a, offset, sign):
    """Whether `A x + c >= 0` goes further than 1e-7 beyond `a.x + offset = 0`, by HiGHS."""
    found = linprog(-sign * a, A_ub=-A, b_ub=c, bounds=(None, None), method="highs")
    return found.status == 3 or -found.fun + sign * offset > 1e-7


def walk(d, seed, cuts, box):
    """Regions met when random hyperplanes are let cut, a random side each time."""
    draw = np.random.default_rng(seed)
    region = everywhere(d, np.array([-np.ones(d), np.ones(d)]) if box else None)
    for _ in range(cuts):
        a = draw.normal(size=d)
        a, offset = a / np.linalg.norm(a), 0.7 * draw.normal()
        parts = halves(region, a, offset)
        yield region, a, offset, parts
        there = [p for p in parts if p is not None]
        region = there[draw.integers(len(there))]


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("box", [False, True])
def test_what_is_cut_is_what_linear_programs_say(d, box):
    split = 0
    for region, a, offset, parts in walk(d, d, 25, box):
        assert region.generators is not None
        assert [p is not None for p in parts] == [
            reaches(region.A, region.c, a, offset, sign) for sign in (-1.0, 1.0)
        ]
        split += all(p is not None for p in parts)
        for part in parts:
            assert part is None or (part.A @ part.inside + part.c > 0).all()
    assert split >= min(d, 3)


@pytest.mark.parametrize("d", [2, 3, 4])
def test_rays_are_the_vertices(d):
    *_, (region, _, _, _) = walk(d, 7, 20, True)
    rays = region.generators.rays
    ours = rays[:, :-1] / rays[:, -1:]
    theirs = HalfspaceIntersection(np.column_stack([-region.A, -region.c]), region.inside)
    theirs = np.unique(theirs.intersections.round(9), axis=0)
    assert len(ours) == len(theirs)
    assert np.abs(ours[:, None] - theirs[None]).max(axis=2).min(axis=1).max() < 1e-8


def test_a_vertex_that_is_left_out_is_seen():
    square = everywhere(2, np.array([[-1.0, -1.0], [1.0, 1.0]])).generators
    a, offset = np.ones(2) / 2**0.5, -1.9 / 2**0.5  # it cuts off the corner (1, 1) only
    assert None not in generators.cut(square, a, offset)
    others = (square.rays[:, :2] < 0).any(axis=1)
    wrong = square._replace(rays=square.rays[others], tight=square.tight[others])
    assert generators.cut(wrong, a, offset)[1] is None


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("box", [False, True])
def test_many_hyperplanes_at_once_are_told_as_one_by_one(d, box):
    draw = np.random.default_rng(d)
    h = draw.normal(size=(60, d + 1))
    h /= np.linalg.norm(h[:, :-1], axis=1, keepdims=True)
    uncut = 0
    for region, *_ in walk(d, d, 12, box):
        cone = region.generators
        parts = [generators.cut(cone, plane[:-1], float(plane[-1])) for plane in h]
        one_by_one = np.array([[p is not None for p in both] for both in parts]).T
        assert (np.array(generators.sides(cone, h)) == one_by_one).all()
        assert (np.array(generators.sides(cone, -h)) == one_by_one[::-1]).all()
        uncut += int((~one_by_one.all(axis=0)).sum())
    assert uncut > 10  # the twin: not every hyperplane cuts
    tighter = cone._replace(rays=cone.rays[:1], lines=cone.lines[:0])
    assert not np.all(generators.sides(tighter, h)[0] == one_by_one[0])


@pytest.mark.parametrize("dead", [None, -1.0, 0.0, 1.0])
def test_without_generators_the_tree_is_the_same(monkeypatch, dead):
    draw = np.random.default_rng(3)
    layers = [(draw.normal(size=(o, i)), draw.normal(size=o)) for i, o in ((3, 5), (5, 4), (4, 2))]
    if dead is not None:  # a unit that does not read its input
        layers[0][0][2], layers[0][1][2] = 0.0, dead
        layers[1][0][1], layers[1][1][1] = 0.0, dead
    quick = model_tree(layers)
    monkeypatch.setattr(generators, "MOST", 0)
    slow = model_tree(layers)
    assert slow.complete
    assert (slow.left == quick.left).all()
    assert (slow.right == quick.right).all()
    assert np.abs(slow.coef - quick.coef).max() < 1e-12


def test_the_box_alone_settles_what_linear_programs_would(monkeypatch):
    draw = np.random.default_rng(5)
    layers = [(draw.normal(size=(o, i)), draw.normal(size=o)) for i, o in ((10, 5), (5, 3))]
    box = draw.normal(size=10) + 0.2 * np.array([-np.ones(10), np.ones(10)])
    asked = []
    monkeypatch.setattr(regions, "interior", lambda A, c: asked.append(1) or interior(A, c))
    quick, few = model_tree(layers, box=box), len(asked)
    assert everywhere(10, box).generators is None
    monkeypatch.setattr(growth, "reached", lambda region, h: None)
    slow = model_tree(layers, box=box)
    assert few < len(asked) - few
    assert quick.complete
    assert (quick.left == slow.left).all()
    assert np.abs(quick.coef - slow.coef).max() < 1e-12
    assert len(quick.leaves) > 1
    small = lambda region, h: reached(region._replace(box=region.inside + 0 * box), h)
    monkeypatch.setattr(growth, "reached", small)  # the twin: a box that is too small loses leaves
    assert len(model_tree(layers, box=box).leaves) < len(quick.leaves)


def test_corners_where_more_facets_meet_than_dimensions():
    """An octahedron has six vertices, four facets at each. Two are cut off, along six edges."""
    region = everywhere(3, 2 * np.array([-np.ones(3), np.ones(3)]))
    for signs in np.ndindex(2, 2, 2):
        a = (2.0 * np.array(signs) - 1) / 3**0.5
        parts = halves(region, a, 1 / 3**0.5)
        region = next(p for p in parts if p is not None and (p.A @ np.zeros(3) + p.c > 0).all())
    assert len(region.generators.rays) == 6
    a, offset = np.array([0.6, 0.0, 0.8]), -0.5
    for part, count in zip(halves(region, a, offset), (4 + 6, 2 + 6), strict=True):
        theirs = HalfspaceIntersection(np.column_stack([-part.A, -part.c]), part.inside)
        assert len(part.generators.rays) == count
        assert len(np.unique(theirs.intersections.round(9), axis=0)) == count
