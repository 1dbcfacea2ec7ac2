"""docs/pruning-guide.md, executed from training to a smaller file with the torch at hand."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import onnx
import pytest

from redy.cli.main import main

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

GUIDE = Path(__file__).parents[2] / "docs" / "pruning-guide.md"
CLASSES = 5


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def network() -> Any:
    """Convolution, normalisation, activation, three times; `fc` at the end, as the guide calls it."""
    nn = torch.nn

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *[
                    layer
                    for i, o in ((3, 16), (16, 32), (32, 32))
                    for layer in (nn.Conv2d(i, o, 3, stride=3), nn.BatchNorm2d(o), nn.ReLU())
                ]
            )
            self.fc = nn.Linear(32, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.fc(self.body(x).mean(dim=(2, 3)))

    return Small()


def train(model: Any, steps: int) -> None:
    """Some steps on random pictures; what is learnt does not matter here."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(8, 3, 224, 224), torch.randint(CLASSES, (8,))
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_guide_leads_from_training_to_a_smaller_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = network()
    layers = list(model.body)
    known: dict[str, Any] = {"model": model, "pairs": list(zip(layers[0::3], layers[1::3], strict=True))}
    train(model, 3)
    pruned, zeroed, permanent, exported, together, checked = blocks("python")
    exec(pruned, known)  # noqa: S102 - the guide is the program under test
    exec(zeroed, known)  # noqa: S102
    train(model, 3)
    exec(permanent, known)  # noqa: S102
    assert all(not hasattr(module, "weight_mask") for module in model.modules())
    with contextlib.redirect_stdout(io.StringIO()):
        exec(exported, known)  # noqa: S102
    command = blocks("console")[0].removeprefix("$ redy ").split()
    with contextlib.suppress(SystemExit):
        main(command)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(checked, known)  # noqa: S102
    assert float(said.getvalue()) < 1e-5
    kernels = [t.dims[0] for t in onnx.load("small.onnx").graph.initializer if len(t.dims) == 4]
    assert sorted(kernels) == [8, 16, 16]
    before, after = (sum(p.stat().st_size for p in tmp_path.glob(f"{name}.onnx*")) for name in ("pruned", "small"))
    assert after < 0.5 * before  # with the external data that newer exporters write
    exec(together, known)  # noqa: S102
    two = [torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(6, 8, 3)]
    known["prune_together"](two, 0.25)
    dead = [~module.weight.detach().flatten(1).any(dim=1) for module in two]
    assert dead[0].sum() == 2
    assert bool((dead[0] == dead[1]).all())
