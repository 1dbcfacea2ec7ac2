"""Networks straight from PyTorch and scikit-learn, through the exporters of these projects."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import onnx

from redy.errors import InputError
from redy.formats.onnx_read import read_network

if TYPE_CHECKING:
    from redy.model import Network


def from_torch(module: Any, example: Any) -> Network:  # noqa: ANN401 - torch is not imported here
    """The network of a PyTorch module, exported in evaluation mode.

    Args:
        module: a torch.nn.Module with one input tensor.
        example: an input with its batch axis, such as torch.zeros(1, 5).

    Raises:
        InputError: torch is missing, or the module cannot be exported or read.
    """
    try:
        import torch  # noqa: PLC0415 - optional, and slow to load
    except ImportError as error:
        raise InputError("from_torch: needs torch; install it with `pip install 'redy[torch]'`") from error
    buffer, training = io.BytesIO(), module.training
    module.eval()
    try:
        options = {"input_names": ["input"], "output_names": ["output"], "dynamic_axes": {"input": {0: "batch"}}}
        torch.onnx.export(module, (example,), buffer, dynamo=False, **options)
    except Exception as error:
        raise InputError(f"from_torch: torch cannot export the module ({_line(error)})") from error
    finally:
        module.train(training)
    return read_network(onnx.load_model_from_string(buffer.getvalue()))


def from_sklearn(model: Any) -> Network:  # noqa: ANN401 - scikit-learn is not imported here
    """The network of a fitted scikit-learn model or pipeline, such as a scaler before an MLP.

    Of a classifier the outputs are the class probabilities; its labels are those of `model.classes_`.

    Args:
        model: fitted on numbers; `model.n_features_in_` inputs.

    Raises:
        InputError: skl2onnx is missing, or the model is not fitted, or it cannot be exported or read.
    """
    try:
        from skl2onnx import to_onnx  # noqa: PLC0415 - optional, and slow to load
        from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415
    except ImportError as error:
        raise InputError("from_sklearn: needs skl2onnx; install it with `pip install 'redy[sklearn]'`") from error
    inputs = getattr(model, "n_features_in_", None)
    if inputs is None:
        raise InputError(f"from_sklearn: {type(model).__name__} is not fitted; call its method fit first")
    classifies = hasattr(model, "predict_proba")
    options = {id(model): {"zipmap": False}} if classifies else None
    try:
        made = to_onnx(model, initial_types=[("input", FloatTensorType([None, inputs]))], options=options)
    except Exception as error:
        raise InputError(f"from_sklearn: skl2onnx cannot export {type(model).__name__} ({_line(error)})") from error
    if classifies:
        # The first output is the label, about which bounds say nothing.
        del made.graph.output[0]
    return read_network(made)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
