"""What every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of the networks that the project ships."""
    return ROOT / "models"


@pytest.fixture(scope="session")
def redy_data() -> Callable[[str], Path]:
    """A function from a relative path, such as `acasxu/prop_1.vnnlib`, to the file; it skips the test without the data.

    The data is looked for in $REDY_DATA, else in models/external/, which the scripts scripts/fetch_*.py fill.
    """

    def find(relative: str) -> Path:
        folder = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external")
        path = folder / relative
        if not path.exists():
            script = "scripts/fetch_acas.py" if relative.startswith("acasxu") else "scripts/fetch_nets.py"
            pytest.skip(f"{relative} is not in {folder}; set REDY_DATA or run: python {script}")
        return path

    return find
