"""Equal weights stand in a file once, however many nodes read them."""

from __future__ import annotations

import numpy as np

from redy.formats.onnx_read import read_network
from redy.formats.onnx_write import to_model
from redy.model import Activate, Affine, Dense, Network, Port, Term
from redy.model.digest import network_digest
from redy.model.functions import relu


def test_equal_weights_are_written_once():
    weight = Dense.of(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32))
    bias = np.arange(4.0)
    nodes = (
        Affine("z", (Term("x", weight),), bias),
        Activate("a", "z", relu(), (4,)),
        Affine("y", (Term("a", weight),), bias),
    )
    network = Network(Port("x", (4,)), nodes, (Port("y", (4,)),))
    model = to_model(network)
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == 1]
    assert [tuple(tensor.dims) for tensor in floats] == [(4, 4), (4,)]
    assert network_digest(read_network(model)) == network_digest(network)
