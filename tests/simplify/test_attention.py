"""Attention in the spellings of exporters: dead heads and rows of heads leave, and nothing else changes."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from building import Array, model, node, ops, shapes, simplified
from onnx import TensorProto, helper

HEADS, ROWS, WIDTH, TOKENS = 4, 6, 10, 5
INNER = HEADS * ROWS
SPELLINGS = ["separate", "fused_split", "fused_gather", "fused_slice", "einsum", "Attention3", "Attention4"]
DEAD_HEAD = [ROWS + i for i in range(ROWS)]
DEAD_ROWS = [h * ROWS + d for h in range(HEADS) for d in (0, 4)]


def projections(
    rng: np.random.Generator, dead: list[int], constant: float, parts: str = "qkv"
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Weights (WIDTH, INNER) and biases of q, k, v; what is dead has zero weights, and in v the bias `constant`."""
    weights = {p: rng.normal(size=(WIDTH, INNER)) / math.sqrt(WIDTH) for p in "qkv"}
    biases = {p: rng.normal(size=INNER) for p in "qkv"}
    for p in parts:
        weights[p][:, dead] = 0
        biases[p][dead] = constant if p == "v" else 0
    return weights, biases


def separate(weights: dict[str, Array], biases: dict[str, Array]) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """q, k and v as (n, HEADS, TOKENS, ROWS), each from its own product."""
    nodes, stored = [], {"split": np.array([0, TOKENS, HEADS, ROWS])}
    for p in "qkv":
        stored |= {f"w{p}": weights[p], f"b{p}": biases[p]}
        nodes += [node("MatMul", f"x w{p}", f"m{p}"), node("Add", f"m{p} b{p}", f"a{p}")]
        nodes += [node("Reshape", f"a{p} split", f"r{p}"), node("Transpose", f"r{p}", p, perm=[0, 2, 1, 3])]
    return nodes, stored


def fused(
    weights: dict[str, Array], biases: dict[str, Array], by: str
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """The same from one product, cut apart by a Split, scalar Gathers, or Slices."""
    stored: dict[str, Array] = {
        "w": np.concatenate([weights[p] for p in "qkv"], axis=1),
        "b": np.concatenate([biases[p] for p in "qkv"]),
        "parts": np.array([0, TOKENS, 3, HEADS, ROWS]),
        "first": np.array([0]),
    }
    nodes = [node("MatMul", "x w", "m"), node("Add", "b m", "a"), node("Reshape", "a parts", "r")]
    nodes.append(node("Transpose", "r", "t", perm=[2, 0, 3, 1, 4]))
    if by == "split":
        nodes.append(node("Split", "t ones", "sq sk sv", axis=0))
        stored["ones"] = np.array([1, 1, 1])
    for i, p in enumerate("qkv"):
        stored |= {f"i{p}": np.array(i), f"from{p}": np.array([i]), f"to{p}": np.array([i + 1])}
        if by == "gather":
            nodes.append(node("Gather", f"t i{p}", p, axis=0))
            continue
        if by == "slice":
            nodes.append(node("Slice", f"t from{p} to{p} first", f"s{p}"))
        nodes.append(node("Squeeze", f"s{p} first", p))
    return nodes, stored


def attend(einsum: bool) -> list[onnx.NodeProto]:
    scores = [node("Transpose", "k", "kt", perm=[0, 1, 3, 2]), node("MatMul", "q kt", "s0")]
    values = [node("MatMul", "p v", "o")]
    if einsum:
        scores = [node("Einsum", "q k", "s0", equation="bhid,bhjd->bhij")]
        values = [node("Einsum", "p v", "o", equation="bhij,bhjd->bhid")]
    middle = [node("Mul", "s0 scale", "s1"), node("Add", "s1 places", "s2"), node("Softmax", "s2", "p", axis=-1)]
    return [*scores, *middle, *values]


def attention(
    spelling: str, rng: np.random.Generator, dead: list[int], constant: float = 0.0, parts: str = "qkv"
) -> onnx.ModelProto:
    """One layer of attention (n, TOKENS, WIDTH) -> the same, with a bias per head and pair of tokens."""
    weights, biases = projections(rng, dead, constant, parts)
    if spelling.startswith("fused"):
        nodes, stored = fused(weights, biases, spelling.removeprefix("fused_"))
    else:
        nodes, stored = separate(weights, biases)
    stored |= {"places": rng.normal(size=(1, HEADS, TOKENS, TOKENS)), "scale": np.array(1 / math.sqrt(ROWS))}
    joined = "j"
    if spelling == "Attention3":
        nodes = [n for n in nodes if n.op_type in ("MatMul", "Add")]
        nodes.append(node("Attention", "aq ak av places", "j", q_num_heads=HEADS, kv_num_heads=HEADS))
    else:
        nodes += [node("Attention", "q k v places", "o")] if spelling == "Attention4" else attend(spelling == "einsum")
        nodes += [node("Transpose", "o", "ot", perm=[0, 2, 1, 3]), node("Reshape", "ot join", "j")]
    stored |= {
        "join": np.array([0, TOKENS, INNER]),
        "wo": rng.normal(size=(INNER, WIDTH)),
        "bo": rng.normal(size=WIDTH),
    }
    nodes += [node("MatMul", f"{joined} wo", "mo"), node("Add", "mo bo", "y")]
    read = {name for n in nodes for name in n.input}
    stored = {name: array for name, array in stored.items() if name in read}
    opset = 23 if spelling.startswith("Attention") else 17
    return model(
        nodes,
        ["n", TOKENS, WIDTH],
        {"y": ["n", TOKENS, WIDTH]},
        stored,
        opset=opset,
        ir_version=8 if opset < 23 else 11,
    )


def widths(made: onnx.ModelProto) -> tuple[int, int]:
    """Columns of the projections together, and rows of the output's weights."""
    held = shapes(made, "MatMul")
    return sum(shape[1] for shape in held[:-1]), held[-1][0]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_a_dead_head_goes(spelling: str, constant: float) -> None:
    made = attention(spelling, np.random.default_rng(1), DEAD_HEAD, constant)
    result = simplified(made, (1, TOKENS, WIDTH), (3, TOKENS, WIDTH)).model
    assert widths(result) == (3 * (INNER - ROWS), INNER - ROWS)
    assert len(result.graph.node) <= len(made.graph.node) + (constant != 0)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_the_same_dead_rows_of_every_head_go(spelling: str, constant: float) -> None:
    made = attention(spelling, np.random.default_rng(2), DEAD_ROWS, constant)
    result = simplified(made, (1, TOKENS, WIDTH), (3, TOKENS, WIDTH)).model
    assert widths(result) == (3 * (INNER - len(DEAD_ROWS)), INNER - len(DEAD_ROWS))


@pytest.mark.parametrize("spelling", ["separate", "einsum", "Attention3", "Attention4"])
@pytest.mark.parametrize("part", ["q", "k"])
def test_rows_whose_counterpart_is_zero_go(spelling: str, part: str) -> None:
    made = attention(spelling, np.random.default_rng(3), DEAD_ROWS, parts=part)
    result = simplified(made, (2, TOKENS, WIDTH)).model
    assert widths(result) == (3 * INNER - 2 * len(DEAD_ROWS), INNER)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_head_that_nobody_reads_goes(spelling: str) -> None:
    made = attention(spelling, np.random.default_rng(4), [])
    stored = next(t for t in made.graph.initializer if t.name == "wo")
    array = onnx.numpy_helper.to_array(stored).copy()
    array[DEAD_HEAD] = 0
    stored.CopyFrom(onnx.numpy_helper.from_array(array, "wo"))
    assert widths(simplified(made, (2, TOKENS, WIDTH)).model) == (3 * (INNER - ROWS), INNER - ROWS)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_head_with_live_values_stays(spelling: str) -> None:
    """Scores that are zero make a mean of the values, not zero."""
    made = attention(spelling, np.random.default_rng(5), DEAD_HEAD, parts="qk")
    result = simplified(made, (2, TOKENS, WIDTH)).model
    assert widths(result)[1] == INNER


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_rows_that_differ_from_head_to_head_stay(spelling: str) -> None:
    dead = [0, ROWS + 1, 2 * ROWS + 2, 3 * ROWS + 3]
    made = attention(spelling, np.random.default_rng(6), dead)
    result = simplified(made, (2, TOKENS, WIDTH)).model
    assert widths(result) == (3 * INNER, INNER)


@pytest.mark.parametrize("spelling", ["separate", "einsum"])
def test_scores_that_the_caller_reads_keep_their_heads(spelling: str) -> None:
    made = attention(spelling, np.random.default_rng(7), DEAD_HEAD)
    made.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", HEADS, TOKENS, TOKENS]))
    result = simplified(made, (2, TOKENS, WIDTH)).model
    assert shapes(result, "MatMul")[0][1] == INNER


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("dead", [[0, 1], [1], [2]])
def test_groups_of_heads_that_share_their_keys(folded: bool, dead: list[int]) -> None:
    """A group goes as a whole: heads 0 and 1 of q share head 0 of k and v, heads 2 and 3 share head 1."""
    rng = np.random.default_rng(8)
    weights = {p: rng.normal(size=(WIDTH, (HEADS if p == "q" else HEADS // 2) * ROWS)) for p in "qkv"}
    out = rng.normal(size=(INNER, WIDTH))
    for head in dead:
        out[head * ROWS : (head + 1) * ROWS] = 0
    stored: dict[str, Array] = {f"w{p}": w for p, w in weights.items()} | {"wo": out}
    nodes = [node("MatMul", f"x w{p}", f"m{p}") for p in "qkv"]
    if folded:
        nodes.append(node("Attention", "mq mk mv", "j", q_num_heads=HEADS, kv_num_heads=HEADS // 2, is_causal=1))
    else:
        for p in "qkv":
            stored[f"s{p}"] = np.array([0, TOKENS, HEADS if p == "q" else HEADS // 2, ROWS])
            nodes += [node("Reshape", f"m{p} s{p}", f"r{p}"), node("Transpose", f"r{p}", p, perm=[0, 2, 1, 3])]
        stored["join"] = np.array([0, TOKENS, INNER])
        nodes += [node("Attention", "q k v", "o", is_causal=1), node("Transpose", "o", "ot", perm=[0, 2, 1, 3])]
        nodes.append(node("Reshape", "ot join", "j"))
    nodes.append(node("MatMul", "j wo", "y"))
    made = model(nodes, ["n", TOKENS, WIDTH], {"y": ["n", TOKENS, WIDTH]}, stored, opset=23, ir_version=11)
    result = simplified(made, (2, TOKENS, WIDTH)).model
    assert shapes(result, "MatMul")[-1][0] == (INNER // 2 if dead == [0, 1] else INNER)


def test_a_norm_of_each_head_keeps_whole_heads_only() -> None:
    """LayerNormalization over the rows of a head: the head may go, a single row may not."""
    rng = np.random.default_rng(9)
    for dead, left in ((DEAD_HEAD, INNER - ROWS), (DEAD_ROWS, INNER)):
        made = attention("separate", rng, dead)
        places = [i for i, n in enumerate(made.graph.node) if n.output[0] in ("q", "k")]
        for i in reversed(places):
            name = made.graph.node[i].output[0]
            made.graph.node[i].output[0] = f"{name}_raw"
            made.graph.node.insert(i + 1, node("LayerNormalization", f"{name}_raw gain", name, axis=-1))
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(ROWS, dtype=np.float32), "gain"))
        result = simplified(made, (2, TOKENS, WIDTH)).model
        assert shapes(result, "MatMul")[0][1] == left
        assert ops(result).count("LayerNormalization") == 2
