"""Verdicts on properties against the exact truth: every pattern of a small network, in rational arithmetic."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from drawing import generators, random_box, random_network
from exact import exact_trace
from hypothesis import given, settings

from redy import prove, write_network
from redy.cli.main import redy
from redy.model import Activate, Affine, Box, BoxTree, Conjunction, Limits, Property, Proved, Refuted, Unknown
from redy.model.functions import relu
from redy.questions.ask import ask
from redy.questions.properties import PropertySearch
from redy.questions.situation import Engines, Situation
from redy.questions.sweep import sweep

SIZES = (2, 3, 2, 2)
TINY = 2.0**-40


def affine_pieces(network, box):
    """Per pattern of phases: linear constraints (row, constant) <= 0 of its region, and outputs as (row, constant)."""
    units = [(node, k) for node in network.activations for k in range(node.shape[0])]
    for pattern in itertools.product((0, 1), repeat=len(units)):
        phase = dict(zip([(node.name, k) for node, k in units], pattern, strict=True))
        values = {network.input.name: [([Fraction(int(i == j)) for j in range(2)], Fraction(0)) for i in range(2)]}
        region = []
        for i in range(2):
            unit = [Fraction(int(i == j)) for j in range(2)]
            region.append((unit, -Fraction(float(box.upper[i]))))
            region.append(([-u for u in unit], Fraction(float(box.lower[i]))))
        for node in network.nodes:
            if isinstance(node, Affine):
                values[node.name] = [combined(node, values, k) for k in range(node.shape[0])]
            else:
                assert isinstance(node, Activate)
                rows = []
                for k, (row, constant) in enumerate(values[node.source]):
                    if phase[node.name, k]:
                        region.append(([-r for r in row], -constant))
                        rows.append((row, constant))
                    else:
                        region.append((row, constant))
                        rows.append(([Fraction(0)] * 2, Fraction(0)))
                values[node.name] = rows
        yield region, values[network.outputs[0].name]


def combined(node, values, k):
    row, constant = [Fraction(0)] * 2, Fraction(float(node.bias[k]))
    for term in node.terms:
        for weight, (inner, shift) in zip(term.operator.matrix()[k], values[term.source], strict=True):
            factor = Fraction(float(weight))
            row = [a + factor * b for a, b in zip(row, inner, strict=True)]
            constant += factor * shift
    return row, constant


def at(constraint, point):
    row, constant = constraint
    return sum((a * b for a, b in zip(row, point, strict=True)), constant)


def vertices(region):
    """All vertices of a bounded polygon given by closed half planes; a segment or a point has them too."""
    found = set()
    for (a, c), (b, d) in itertools.combinations(region, 2):
        determinant = a[0] * b[1] - a[1] * b[0]
        if determinant:
            point = ((-c * b[1] + d * a[1]) / determinant, (-a[0] * d + b[0] * c) / determinant)
            if point not in found and all(at(other, point) <= 0 for other in region):
                found.add(point)
    return found


def rows_of(conjunction, outputs):
    """The rows of a conjunction as constraints on the input in one pattern."""
    for k in range(len(conjunction.constants)):
        row = [Fraction(float(a)) for a in conjunction.inputs[k]]
        constant = Fraction(float(conjunction.constants[k]))
        for weight, (inner, shift) in zip(conjunction.outputs[k], outputs, strict=True):
            factor = Fraction(float(weight))
            row = [a + factor * b for a, b in zip(row, inner, strict=True)]
            constant += factor * shift
        yield row, constant


def violated(network, conjunction):
    """Whether some input of the box is unsafe, in real arithmetic."""
    for region, outputs in affine_pieces(network, conjunction.box):
        rows = list(rows_of(conjunction, outputs))
        corners = vertices([*region, *rows])
        if not corners:
            continue
        middle = [sum(values, Fraction(0)) / len(corners) for values in zip(*corners, strict=True)]
        if all(at(row, middle) < 0 for row, strict in zip(rows, conjunction.strict, strict=True) if strict):
            return True
    return False


def smallest(network, conjunction, k):
    """The smallest value of one row over the box."""
    return min(
        at(list(rows_of(conjunction, outputs))[k], corner)
        for region, outputs in affine_pieces(network, conjunction.box)
        for corner in vertices(region)
    )


def drawn_conjunction(rng, network, box, border):
    """Random constraints; with `border` the first one is just met, or missed by nothing or next to nothing."""
    count = int(rng.integers(1, 4))
    inputs = rng.integers(-2, 3, (count, 2)) / 4 * (rng.random() < 0.3)
    outputs, constants = rng.integers(-2, 3, (count, 2)) / 2, rng.integers(-8, 9, count) / 8
    strict = rng.random(count) < 0.3
    conjunction = Conjunction(box, inputs, outputs, constants, strict)
    if border:
        shift = float(smallest(network, conjunction, 0)) + float(rng.choice([0.0, TINY, -TINY, 2.0**-60]))
        constants = constants.copy()
        constants[0] -= shift
        conjunction = Conjunction(box, inputs[:1], outputs[:1], constants[:1], strict[:1])
    return conjunction


def check(rng):
    network = random_network(rng, SIZES, relu(), coarse=rng.random() < 0.7)
    boxes = [random_box(rng, 2, coarse=True) for _ in range(int(rng.integers(1, 3)))]
    border = rng.random() < 0.5
    claim = Property(
        tuple(drawn_conjunction(rng, network, boxes[int(rng.integers(len(boxes)))], border) for _ in range(2))
    )
    verdict = ask(claim, Situation(network, claim.hull()), Limits(work=3_000_000))
    truth = [violated(network, conjunction) for conjunction in claim]
    if isinstance(verdict, Proved):
        assert not any(truth)
        proved = [part for tree in verdict.proof.evidence if isinstance(tree, BoxTree) for part in tree.parts]
        assert sorted(proved) == list(range(len(claim.conjunctions)))
    if isinstance(verdict, Refuted):
        values = exact_trace(network, verdict.witness.tolist())[network.outputs[0].name]
        point = verdict.witness
        assert any(
            conjunction.box.contains(point[None])[0] and met(conjunction, point, values) for conjunction in claim
        )
        assert any(truth)
    return border, verdict


def met(conjunction, point, values):
    outputs = [([Fraction(0)] * 2, value) for value in values]
    rows = [at(row, [Fraction(float(x)) for x in point]) for row in rows_of(conjunction, outputs)]
    return all(v < 0 or (v == 0 and not s) for v, s in zip(rows, conjunction.strict, strict=True))


def check_many(count, seed):
    decided = clear = 0
    for number in range(count):
        border, verdict = check(np.random.default_rng([seed, number]))
        clear += not border
        decided += not border and not isinstance(verdict, Unknown)
    assert decided >= 0.9 * clear


def test_no_verdict_contradicts_the_exact_truth():
    check_many(30, 0)


@pytest.mark.slow
def test_no_verdict_contradicts_the_exact_truth_in_5000_draws():
    check_many(5000, 1)


@given(generators)
@settings(max_examples=10, deadline=None)
def test_other_engines_contradict_nothing(rng):
    network = random_network(rng, SIZES, relu(), coarse=True)
    box = random_box(rng, 2, coarse=True)
    claim = Property((drawn_conjunction(rng, network, box, border=bool(rng.integers(2))),))
    truth = violated(network, claim.conjunctions[0])
    for engine in ("linear", "milp"):
        situation = Situation(network, box, engines=Engines(engine))
        verdict = ask(claim, situation, Limits.within(5))
        # The published engine trusts the solver, which is right where nothing lies within its tolerance of the border.
        near = abs(smallest(network, claim.conjunctions[0], 0)) < 1e-4
        assert not isinstance(verdict, Refuted) or truth
        assert not isinstance(verdict, Proved) or not truth or (near and engine == "milp")


@given(generators)
@settings(max_examples=20, deadline=None)
def test_best_first_gives_trees_of_the_whole_box(rng):
    network = random_network(rng, (2, 6, 6, 2), relu())
    box = random_box(rng, 2)
    y = network.evaluate(box.sample(2000, np.random.default_rng(0)))
    constant = -float(y[:, 0].min()) + 0.02 * float(np.ptp(y[:, 0]) + 1e-3)
    claim = Property((Conjunction(box, np.zeros((1, 2)), np.array([[1.0, 0.0]]), [constant], [False]),))
    search = PropertySearch(claim, Situation(network, box), Limits(work=20_000_000))
    if search._best_first() is None and not any(part.open for part in search.parts):
        (tree,) = search._all_evidence()
        assert tree.parts == (0,)
        assert (tree.tree == -1).sum() == (tree.tree >= 0).sum() + 1


@given(generators)
@settings(max_examples=20, deadline=None)
def test_a_sweep_over_many_boxes_closes_only_what_holds(rng):
    network = random_network(rng, SIZES, relu(), coarse=True)
    whole = random_box(rng, 2, coarse=True).grid((20, 15))
    boxes = [whole[k] for k in range(len(whole))]
    groups = [[drawn_conjunction(rng, network, box, border=False)] for box in boxes]
    closed = sweep(network, boxes, groups, Limits())
    picked = rng.choice(len(boxes), 6, replace=False)
    assert all(not closed[k][0] or not violated(network, groups[k][0]) for k in picked)


def vnnlib(bounds, *formulas):
    lines = ["(declare-const X_0 Real)", "(declare-const X_1 Real)", "(declare-const Y_0 Real)"]
    lines += [f"(assert (>= X_{k} {low}))(assert (<= X_{k} {high}))" for k, (low, high) in enumerate(bounds)]
    return "\n".join([*lines, *(f"(assert {formula})" for formula in formulas)])


@pytest.fixture
def sum_of_relus(tmp_path):
    """y = relu(x0) + relu(x1) as a file: between 0 and 2 on [-1, 1]^2, and 0 on a quarter of it."""
    rng = np.random.default_rng(0)
    network = random_network(rng, (2, 2, 1), relu())
    first, active, last = network.nodes
    terms = (type(first.terms[0])("x", type(first.terms[0].operator).of(np.eye(2))),)
    first = Affine(first.name, terms, np.zeros(2))
    last = Affine(last.name, (type(terms[0])(active.name, type(terms[0].operator).of(np.ones((1, 2)))),), np.zeros(1))
    path = tmp_path / "sum.onnx"
    write_network(type(network)(network.input, (first, active, last), network.outputs), path)
    return path


@pytest.mark.parametrize(
    ("formula", "word", "code"),
    [
        ("(<= Y_0 -0.001)", "unsat", 0),
        ("(>= Y_0 2.001)", "unsat", 0),
        ("(<= Y_0 0)", "sat", 1),  # a tie violates
        ("(>= Y_0 2)", "sat", 1),  # so does a corner
        ("(and (>= Y_0 0.5) (<= (+ X_0 X_1) -0.49))", "sat", 1),
        ("(and (>= Y_0 0.5) (<= (+ X_0 X_1) -0.5001))", "unsat", 0),
        ("(or (>= Y_0 3) (<= Y_0 -1))", "unsat", 0),
        ("(< Y_0 0)", "unknown", 3),  # in real arithmetic it holds, but only just
    ],
)
def test_the_command_gives_verdict_code_and_result(sum_of_relus, tmp_path, formula, word, code):
    prop = tmp_path / "p.vnnlib"
    prop.write_text(vnnlib([(-1, 1), (-1, 1)], formula))
    result = tmp_path / "result.txt"
    options = ["--time-limit", "1.5", "--json", "--result", str(result)]
    ended = CliRunner().invoke(redy, ["prove", str(sum_of_relus), "--property", str(prop), *options])
    assert ended.exit_code == code, ended.output
    first, _, rest = result.read_text().partition("\n")
    assert first == word or (word == "unknown" and first == "timeout")
    answer = json.loads(ended.stdout)
    if word == "sat":
        assert rest.count("(X_") == 2
        assert rest.count("(Y_0") == 1
        x = np.array(answer["input"])
        assert np.array_equal(x, x.astype(np.float32))
        assert (np.abs(x) <= 1).all()
        assert answer["output"] == pytest.approx([np.maximum(x, 0).sum()])
    else:
        assert rest == ""


def test_a_box_without_a_float32_number_is_not_violated(sum_of_relus, tmp_path):
    prop = tmp_path / "p.vnnlib"
    prop.write_text(vnnlib([("0.1", "0.1"), (-1, 1)], "(>= Y_0 0)"))
    assert isinstance(prove(sum_of_relus, prop, time_limit=0.5), Unknown)


def test_an_unsafe_set_without_inputs_is_never_reached(sum_of_relus):
    assert isinstance(prove(sum_of_relus, Property(())), Proved)


def test_a_reduced_network_is_asked_as_well(sum_of_relus, tmp_path):
    prop = tmp_path / "p.vnnlib"
    prop.write_text(vnnlib([(-1, -0.5), (-1, 1)], "(>= Y_0 1.5)"))
    small = tmp_path / "small.onnx"
    runner = CliRunner()
    assert runner.invoke(redy, ["reduce", str(sum_of_relus), "--bounds", str(prop), "-o", str(small)]).exit_code == 0
    ended = runner.invoke(
        redy, ["prove", str(sum_of_relus), "--property", str(prop), "--reduced", str(small), "--json"]
    )
    assert ended.exit_code == 0
    original, reduced = json.loads(ended.stdout)
    assert "made on the property's box" in reduced["reduction"]
    assert "reduction" not in original


def test_many_inputs_are_decided_by_bounds_splits_and_programs():
    rng = np.random.default_rng(3)
    network = random_network(rng, (20, 8, 6, 2), relu())
    box = Box(np.full(20, -0.2), np.full(20, 0.2))
    low = float(network.evaluate(box.sample(5000, rng))[:, 0].min())
    outputs, inputs = np.array([[1.0, 0.0]]), np.zeros((1, 20))
    for constant, kind in ((-low + 5.0, Proved), (-low - 0.01, Refuted)):
        claim = Property((Conjunction(box, inputs, outputs, [constant], [False]),))
        assert isinstance(prove(network, claim, time_limit=20), kind)
