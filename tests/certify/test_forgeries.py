"""Wrong certificates: whatever makes a claim false, by exact rational evaluation at a witness, is rejected."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redy.certificates import Draft, Effort, draft, trees
from redy.certificates.encoding import pack
from redy.certify import Rejected, Unusable, check
from redy.certify.claims import SameWinner, Within
from redy.certify.encoding import Part, unpack
from redy.certify.graph import Graph

ANYTHING = Within(np.array([np.inf]))


def save(path, weights, biases):
    nodes, tensors, value = [], [], "x"
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        tensors += [numpy_helper.from_array(w, f"w{k}"), numpy_helper.from_array(b, f"b{k}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [f"z{k}"], transB=1))
        value = f"z{k}"
        if k + 1 < len(weights):
            nodes.append(helper.make_node("Relu", [value], [f"a{k}"]))
            value = f"a{k}"
    ends = ("x", weights[0].shape[1]), (value, len(weights[-1]))
    ports = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1, size]) for name, size in ends]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def exact(network, x):
    """Outputs as fractions."""
    values = [Fraction(float(v)) for v in x]
    for k, (w, b) in enumerate(zip(*network, strict=True)):
        values = [
            sum((Fraction(float(a)) * v for a, v in zip(row, values, strict=True)), Fraction(float(c)))
            for row, c in zip(w, b, strict=True)
        ]
        if k + 1 < len(network[0]):
            values = [max(v, Fraction(0)) for v in values]
    return values


def apart(first, second, x):
    """The exact largest difference of an output at a point."""
    return max(abs(a - b) for a, b in zip(exact(first, x), exact(second, x), strict=True))


def floating(network, x):
    for k, (w, b) in enumerate(zip(*network, strict=True)):
        x = x @ w.T + b
        x = np.maximum(x, 0) if k + 1 < len(network[0]) else x
    return x


def witness(first, second, low, high, rng):
    """A point of the box at which the networks are far apart."""
    points = rng.uniform(low, high, (500, len(low)))
    points = np.concatenate([points, np.where(rng.random((50, len(low))) < 0.5, low, high)])
    difference = np.abs(floating(first, points) - floating(second, points)).max(axis=1)
    return points[int(np.nan_to_num(difference).argmax())]


def drawn(rng, scale):
    """A network, with weights of very different size where `scale` is large."""
    sizes = [int(rng.integers(1, 3)), *rng.integers(1, 5, rng.integers(1, 4)), int(rng.integers(1, 3))]
    weights, biases = [], []
    for before, after in itertools.pairwise(sizes):
        weights.append(rng.normal(size=(after, before)) * 2.0 ** rng.integers(-scale, scale + 1, (after, before)))
        biases.append(rng.normal(size=after) * 2.0 ** rng.integers(-scale, scale + 1, after))
    return weights, biases


def changed(rng, network, share):
    return [[w * (1 + share * rng.uniform(-1, 1, w.shape)) for w in part] for part in network]


def below(value):
    """The largest float64 below a positive fraction."""
    found = float(value)
    return found if Fraction(found) < value else float(np.nextafter(found, -np.inf))


def rejected(files, data):
    try:
        check(*files, data)
    except (Rejected, Unusable):
        return True
    return False


def lies(rng, folder):
    """Whether a certificate of an error slightly too small is rejected, for badly scaled networks; None: no case."""
    scale = int(rng.choice([0, 3, 12, 30]))
    first = drawn(rng, scale)
    second = changed(rng, first, float(rng.choice([1e-15, 1e-9, 1e-3])))
    n = first[0][0].shape[1]
    low = rng.normal(size=n) * 2.0 ** rng.integers(-scale, scale + 1, n)
    width = np.where(rng.random(n) < 0.4, 0.0, np.abs(rng.normal(size=n)) * 2.0 ** rng.integers(-scale, 3))
    high = low + width
    files = folder / "a.onnx", folder / "b.onnx"
    save(files[0], *first)
    save(files[1], *second)
    made = draft(*files, (low, high), Within(np.array([1e-300])), weakest=ANYTHING, effort=Effort(0.01, nodes=40))
    truth = apart(first, second, witness(first, second, low, high, rng))
    if not isinstance(made, Draft) or truth <= Fraction(1, 10**290):
        return None
    assert not rejected(files, made.sealed(files[1]))
    assert Fraction(float(made.claim.error.max())) >= truth, "an accepted certificate is false"
    part = Part(low, high, Within(np.array([below(truth)])))
    header = replace(made.header, parts=(part,), reduced=Graph(files[1]).digest)
    return rejected(files, pack(header, made.body))


def test_badly_scaled_networks_have_no_accepted_lies(tmp_path):
    found = [lies(np.random.default_rng(seed), tmp_path) for seed in range(60)]
    assert all(answer is not False for answer in found)
    assert sum(answer is True for answer in found) >= 30


@pytest.mark.slow
def test_many_badly_scaled_networks_have_no_accepted_lies(tmp_path):
    found = [lies(np.random.default_rng(1000 + seed), tmp_path) for seed in range(10_000)]
    assert all(answer is not False for answer in found)
    assert sum(answer is True for answer in found) >= 5_000


class Case:
    """A certified pair of networks, and what a mutant of its certificate may be."""

    def __init__(self, seed, folder):
        self.rng = np.random.default_rng(seed)
        weights = [self.rng.normal(size=shape) for shape in ((5, 2), (4, 5), (2, 4))]
        self.first = weights, [self.rng.normal(size=len(w)) for w in weights]
        self.second = changed(self.rng, self.first, 1e-3)
        self.files, self.other = (folder / "a.onnx", folder / "b.onnx"), folder / "c.onnx"
        save(self.files[0], *self.first)
        save(self.files[1], *self.second)
        self.low, self.high = np.full(2, -1.0), np.full(2, 1.0)
        self.point = witness(self.first, self.second, self.low, self.high, self.rng)
        self.truth = apart(self.first, self.second, self.point)
        made = draft(*self.files, (self.low, self.high), Within(np.array([1.1 * float(self.truth)])), weakest=ANYTHING)
        self.data = made.sealed(self.files[1])
        self.header, self.body = unpack(self.data)
        self.lie = replace(self.header, parts=(Part(self.low, self.high, Within(np.array([below(self.truth)]))),))

    def weight(self, which=0):
        """Another number in a file, with its digest set right."""
        second = [[w.copy() for w in part] for part in self.second]
        layer = int(self.rng.integers(3))
        flat = second[which][layer].reshape(-1)
        flat[self.rng.integers(flat.size)] += self.rng.normal() * 10.0 ** self.rng.integers(-4, 2)
        save(self.other, *second)
        point = witness(self.first, second, self.low, self.high, self.rng)
        false = apart(self.first, second, point) > Fraction(float(self.header.parts[0].claim.error.max()))
        return (
            (self.files[0], self.other),
            pack(replace(self.header, reduced=Graph(self.other).digest), self.body),
            false,
        )

    def bias(self):
        return self.weight(1)

    def face(self):
        """A larger box."""
        low, high = self.low.copy(), self.high.copy()
        (low if self.rng.random() < 0.5 else high)[self.rng.integers(2)] *= 1 + 10.0 ** self.rng.integers(-3, 3)
        point = witness(self.first, self.second, low, high, self.rng)
        part = replace(self.header.parts[0], low=low, high=high)
        false = apart(self.first, self.second, point) > Fraction(float(part.claim.error.max()))
        return self.files, pack(replace(self.header, parts=(part,)), self.body), false

    def byte(self):
        """Axis, leaf, phase bits or partner changed, under a claim that is false."""
        body = bytearray(self.body)
        body[self.rng.integers(len(body))] = self.rng.choice([0, 1, 2, 7, 85, 170, 255, int(self.rng.integers(256))])
        return self.files, pack(self.lie, bytes(body)), True

    def order(self):
        """Two bytes exchanged, under a claim that is false."""
        body = bytearray(self.body)
        i, k = self.rng.integers(len(body), size=2)
        body[i], body[k] = body[k], body[i]
        return self.files, pack(self.lie, bytes(body)), True

    def setting(self):
        """Other numbers of fits and shares, under a claim that is false."""
        numbers = {"fits": int(self.rng.integers(9)), "root_fits": int(self.rng.integers(9))}
        numbers |= {"share": int(self.rng.choice([0, 1, 3, 10, 50, 1000]))}
        return self.files, pack(replace(self.lie, **numbers), self.body), True

    def error(self):
        """A smaller error."""
        return self.files, pack(self.lie, self.body), True

    def winner(self):
        """A decision that is not kept at the witness."""
        ours, theirs = exact(self.first, self.point), exact(self.second, self.point)
        best, lead = int(ours[1] > ours[0]), abs(ours[0] - ours[1])
        false = lead > 0 and theirs[best] < theirs[1 - best]
        part = Part(self.point, self.point, SameWinner("max", max(below(lead), 0.0) if lead else 0.0))
        return self.files, pack(replace(self.header, parts=(part,)), self.body), false

    def digest(self):
        """Another file."""
        name = self.rng.choice(["original", "reduced"])
        return self.files, pack(replace(self.header, **{name: "0" * 64}), self.body), True

    def cut(self):
        """The end is missing, of the file or of the body."""
        k = int(self.rng.integers(1, len(self.body)))
        data = pack(self.header, self.body[:-k]) if self.rng.random() < 0.5 else self.data[:-k]
        return self.files, data, True

    def foreign(self):
        """Bytes that follow, or that are no certificate."""
        more = bytes(self.rng.integers(0, 256, self.rng.integers(1, 9), dtype=np.uint8))
        data = pack(self.header, self.body + more) if self.rng.random() < 0.5 else self.data + more
        return self.files, data, True


KINDS = ("weight", "bias", "face", "byte", "order", "setting", "error", "winner", "digest", "cut", "foreign")


def mutants(folder, seeds, each):
    """How many mutants were false; all of those must be rejected, and none may crash."""
    false = 0
    for seed in seeds:
        case = Case(seed, folder)
        for kind in KINDS:
            for _ in range(each):
                files, data, wrong = getattr(case, kind)()
                answer = rejected(files, data)
                assert answer or not wrong, (seed, kind)
                false += bool(wrong)
    return false


def test_false_mutants_are_rejected(tmp_path):
    assert mutants(tmp_path, range(3), 3) >= 70


@pytest.mark.slow
def test_many_false_mutants_are_rejected(tmp_path):
    assert mutants(tmp_path, range(100, 130), 8) >= 2_000


def test_a_bomb_does_not_unpack(tmp_path):
    case = Case(1, tmp_path)
    assert rejected(case.files, pack(case.header, b"\xff" * 2**27))


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_networks_are_condensed_again_inside_trees(tmp_path, monkeypatch, fold):
    """Trees that fold at every depth are accepted; under a false claim they are not, nor folded otherwise."""
    monkeypatch.setattr(trees, "PLAIN", 1)
    monkeypatch.setattr(trees, "FOLD", fold)
    rng = np.random.default_rng(5)
    weights = [rng.normal(size=shape) for shape in ((8, 2), (8, 8), (2, 8))]
    first = weights, [rng.normal(size=len(w)) for w in weights]
    second = changed(rng, first, 0.1)
    files, low, high = (tmp_path / "a.onnx", tmp_path / "b.onnx"), np.full(2, -1.0), np.full(2, 1.0)
    save(files[0], *first)
    save(files[1], *second)
    truth = apart(first, second, witness(first, second, low, high, rng))
    error = Within(np.array([1.3 * float(truth)]))
    made = draft(*files, (low, high), error, effort=Effort(5.0))
    assert isinstance(made, Draft)
    assert len(made.body) > 40
    check(*files, made.sealed(files[1]))
    lie = replace(
        made.header, parts=(Part(low, high, Within(np.array([below(truth)]))),), reduced=Graph(files[1]).digest
    )
    for other in (1, 2, 3, 255):
        assert rejected(files, pack(lie, made.body.replace(bytes([fold]), bytes([other]), 1)))
