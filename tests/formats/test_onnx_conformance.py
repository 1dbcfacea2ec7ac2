"""The ONNX project's own test cases for every operator that has a reader: right, or carried, or one clear refusal."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from redy.errors import InputError
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model
from redy.formats.reading.graph import READERS

UNLIKE = ("_expanded", "_training", "_mask", "_bfloat16", "_int8", "_int16", "_uint8", "_int32", "_int64", "_sequence")


def suitable(case):
    """A model whose operator has a reader, whose first input is floating-point and whose other inputs are tensors."""
    if not case.data_sets or case.model is None or any(word in case.name for word in UNLIKE):
        return False
    inputs, outputs = case.data_sets[0]
    arrays = all(isinstance(array, np.ndarray) for array in [*inputs, *outputs])
    shaped = arrays and bool(inputs) and inputs[0].dtype in (np.float32, np.float64) and inputs[0].size > 0
    return shaped and len(inputs) == len(case.model.graph.input) and case.model.graph.node[0].op_type in READERS


@pytest.mark.slow
def test_the_onnx_project_s_node_tests():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Making the cases computes logarithms of negative numbers and the like.
        cases = [case for case in collect_testcases(None) if suitable(case)]
    right = 0
    for case in cases:
        (first, *rest), (expected, *_) = case.data_sets[0]
        for info, array in zip(case.model.graph.input[1:], rest, strict=True):
            case.model.graph.initializer.append(numpy_helper.from_array(array, info.name))
        try:
            network = read_network(case.model)
        except InputError as error:
            raise AssertionError(f"{case.name}: {error}") from error
        x = first if network.input.batch is not None else first[None]
        wanted = expected if network.outputs[0].batch is not None else expected[None]
        for found in (network.evaluate(x), _ran(network, x)):
            if found is not None:
                assert found.shape == wanted.shape, case.name
                np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5, err_msg=case.name)
                right += 1
    assert len(cases) > 200
    assert right > 1.5 * len(cases)


def _ran(network, x):
    """What onnxruntime makes of the written model, None where onnxruntime lacks the operator in that type."""
    model = to_model(network)
    try:
        return Session(model).run(x)
    except InputError:
        return None
