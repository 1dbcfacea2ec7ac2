"""Networks from PyTorch and scikit-learn compute what their models compute."""

from __future__ import annotations

import builtins
import warnings

import numpy as np
import pytest

import redy


def fitted(model, classes):
    sklearn = pytest.importorskip("sklearn")
    assert sklearn
    rng = np.random.default_rng(0)
    x = 3 * rng.normal(size=(120, 4)) + 1
    y = (x.sum(axis=1) > 4).astype(int) + (x[:, 0] > 2 if classes == 3 else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rounds of training
        return model.fit(x, y), x


def models():
    pytest.importorskip("sklearn")
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    for activation in ("relu", "tanh", "logistic", "identity"):
        size = {"hidden_layer_sizes": (6, 5), "max_iter": 10, "random_state": 0, "activation": activation}
        yield MLPRegressor(**size), 2
        yield make_pipeline(MinMaxScaler(), MLPRegressor(**size)), 2
        for classes in (2, 3):
            yield make_pipeline(StandardScaler(), MLPClassifier(**size)), classes


def test_scalers_and_heads_are_read():
    pytest.importorskip("skl2onnx")
    for unfitted, classes in models():
        model, x = fitted(unfitted, classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network = redy.from_sklearn(model)
        wanted = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)[:, None]
        assert network.evaluate(x) == pytest.approx(wanted, abs=1e-5)


def test_a_model_that_is_not_fitted_is_refused():
    pytest.importorskip("skl2onnx")
    for unfitted, _ in models():
        with pytest.raises(redy.InputError, match="call its method fit first"):
            redy.from_sklearn(unfitted)


@pytest.mark.parametrize(("name", "call"), [("torch", redy.from_torch), ("skl2onnx", redy.from_sklearn)])
def test_a_missing_package_is_named(name, call, monkeypatch):
    before = builtins.__import__

    def without(module, *rest, **more):
        if module.partition(".")[0] == name:
            raise ImportError(name)
        return before(module, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(redy.InputError, match=f"needs {name}; install it"):
        call(*([object()] if name == "skl2onnx" else [object(), object()]))


def test_a_module_is_read_in_evaluation_mode():
    torch = pytest.importorskip("torch")
    layers = (torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(16, 3))
    module = torch.nn.Sequential(*layers).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its own exporter
        network = redy.from_torch(module, torch.zeros(1, 5))
    assert module.training
    x = np.random.default_rng(0).normal(size=(20, 5))
    wanted = module.eval()(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    assert network.evaluate(x) == pytest.approx(wanted, abs=1e-5)
