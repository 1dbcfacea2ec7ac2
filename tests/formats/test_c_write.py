"""Networks as C: the compiled code computes what redy says, and what has no C form is refused without a file."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess

import numpy as np
import pytest

from redy.cli.main import run
from redy.errors import InputError, Unsupported
from redy.formats.c_write import c_network, evaluate_in_order
from redy.formats.onnx_read import read_network
from redy.model import Activate, Affine, Network
from redy.model.functions import clip, leaky_relu, relu
from redy.model.network import Port, Term
from redy.model.operators import Dense

CC = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(CC is None, reason="needs a C compiler")


def compiled(folder, network, points):
    source = c_network(network, "net", points)
    (folder / "net.c").write_text(source.code)
    (folder / "net.h").write_text(source.header)
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror", "-shared", "-fPIC"]
    subprocess.run([CC, *flags, str(folder / "net.c"), "-o", str(folder / "net.so")], check=True)
    return ctypes.CDLL(str(folder / "net.so")), source


def outputs(library, network, points):
    dtype = np.dtype(network.weight_dtype)
    x = np.ascontiguousarray(points.reshape(len(points), -1), dtype=dtype)
    y = np.full((len(points), int(np.prod(network.outputs[0].shape))), np.nan, dtype=dtype)
    for row, result in zip(x, y, strict=True):
        library.net_evaluate(row.ctypes.data_as(ctypes.c_void_p), result.ctypes.data_as(ctypes.c_void_p))
    return y


def random_network(seed, dtype):
    """Layers that read one or two earlier values, with one of three activations."""
    rng = np.random.default_rng(seed)
    sizes, nodes, values = {"x": int(rng.integers(1, 5))}, [], ["x"]
    for layer in range(int(rng.integers(1, 6))):
        width = int(rng.integers(1, 7))
        sources = {values[-1], str(rng.choice(values))}
        operators = [
            Term(s, Dense(rng.normal(size=(width, sizes[s])).astype(dtype), (sizes[s],), (width,)))
            for s in sorted(sources)
        ]
        nodes.append(Affine(f"z{layer}", tuple(operators), rng.normal(size=width).astype(dtype)))
        nodes.append(
            Activate(f"y{layer}", f"z{layer}", [relu(), leaky_relu(0.125), clip(-0.5, 1.0)][layer % 3], (width,))
        )
        sizes |= {f"z{layer}": width, f"y{layer}": width}
        values += [f"z{layer}", f"y{layer}"]
    last = str(rng.choice(values))
    return Network(Port("x", (sizes["x"],)), tuple(nodes), (Port(last, (sizes[last],)),), weight_dtype=dtype)


@needs_compiler
@pytest.mark.parametrize("seed", range(10))
def test_compiled_code_is_the_network_bit_for_bit(seed, tmp_path):
    dtype = "float32" if seed % 2 else "float64"
    network = random_network(seed, dtype)
    points = np.random.default_rng(seed).uniform(-2, 2, size=(40, *network.input.shape)).astype(dtype)
    library, source = compiled(tmp_path, network, points)
    found = outputs(library, network, points)
    assert np.array_equal(found, evaluate_in_order(network, points))
    exact = network.evaluate(points.astype(np.float64)).reshape(found.shape)
    np.testing.assert_allclose(found, exact, atol=(1e-4 if dtype == "float32" else 1e-12) * max(1, np.abs(exact).max()))
    assert library.net_selftest() == 0
    numbers = len(re.findall(r"-?0x[0-9a-f.]+p[+-]\d+", source.code))
    assert source.flash == numbers * np.dtype(dtype).itemsize
    assert f"NET_STACK_BYTES {source.stack}\n" in source.header


@needs_compiler
def test_the_self_test_finds_a_wrong_weight(tmp_path):
    network = random_network(3, "float32")
    points = np.random.default_rng(3).uniform(-2, 2, size=(8, *network.input.shape))
    source = c_network(network, "net", points)
    head, _, tail = source.code.partition("test_outputs")
    (tmp_path / "net.h").write_text(source.header)
    (tmp_path / "net.c").write_text(head + "test_outputs" + re.sub(r"-?0x", "0x1", tail, count=1))
    subprocess.run(
        [CC, "-std=c99", "-shared", "-fPIC", str(tmp_path / "net.c"), "-o", str(tmp_path / "n.so")], check=True
    )
    assert ctypes.CDLL(str(tmp_path / "n.so")).net_selftest() == 1


@needs_compiler
@pytest.mark.parametrize("name", ["avoidance", "digits_mlp"])
def test_export_writes_code_that_passes_its_self_test(models, tmp_path, capsys, name):
    target = tmp_path / "ctrl.c"
    assert run(["export", str(models / f"{name}.onnx"), "-o", str(target), "--prefix", "ctrl"]) == 0
    assert "flash" in capsys.readouterr().out
    (tmp_path / "main.c").write_text('#include "ctrl.h"\nint main(void) { return ctrl_selftest(); }\n')
    program = tmp_path / "main"
    subprocess.run([CC, "-std=c99", "-O2", str(target), str(tmp_path / "main.c"), "-o", str(program)], check=True)
    assert subprocess.run([program], check=False).returncode == 0


@pytest.mark.parametrize("prefix", ["", "1a", "a-b", "while", "a b", 'a"', "é"])
def test_a_prefix_that_is_no_identifier_is_refused(prefix):
    network = random_network(1, "float32")
    with pytest.raises(InputError, match="C identifier"):
        c_network(network, prefix, np.zeros((1, *network.input.shape)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "{}/ctrl.txt"],
        ["-o", "{}/other.c", "--prefix", "ctrl"],
        ["-o", "{}/c.c", "--slice", "0"],
        ["-o", "{}/c.c", "--bounds", "[1,0]"],
    ],
)
def test_bad_export_of_a_network_is_exit_2_and_writes_nothing(models, tmp_path, capsys, arguments):
    filled = [argument.format(tmp_path) for argument in arguments]
    assert run(["export", str(models / "avoidance.onnx"), *filled]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_large_convolution_is_refused_by_name(models, monkeypatch):
    monkeypatch.setattr("redy.formats.c_write.MOST_WEIGHTS", 10_000)
    network = read_network(models / "digits_cnn.onnx")
    with pytest.raises(Unsupported, match=r"conv_1\.out.*use the ONNX file"):
        c_network(network, "net", np.zeros((1, *network.input.shape)))
