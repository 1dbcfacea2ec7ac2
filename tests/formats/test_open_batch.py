"""Files that leave the batch open and yet take only one sample are run sample by sample."""

from __future__ import annotations

import numpy as np
from onnx_models import model_of, node

from redy.formats.onnx_run import Session


def test_a_file_that_flattens_its_open_batch_is_run_sample_by_sample():
    weight = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    nodes = [node("Flatten", "x", "flat", axis=0), node("Gemm", "flat W")]
    session = Session(model_of(nodes, ["batch", 2, 3], {"W": weight}))
    x = np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(session.run_all(x)[0].reshape(5, 2), x.reshape(5, 6) @ weight, rtol=1e-5)
    assert session.by_sample
