"""The command line starts without what numba loads for compiling, and can compile all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
import numpy as np
from redy.condensed.kernels import start
if sys.argv[1] == "owned":
    start.own_process()
from redy.condensed.kernels import compiling
import numba
from numba.core import cpu
assert (cpu.CPUContext.load_additional_registries.__name__ == "_nothing") == (sys.argv[1] == "owned")
roots = numba.njit(lambda x: np.sqrt(np.abs(x)).sum())
assert roots(np.array([-4.0, 9.0])) == 5.0
assert cpu.CPUContext.load_additional_registries.__name__ == "load_additional_registries"
print("scipy.linalg" in sys.modules)
import scipy.linalg
"""


def ended(kind: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, kind], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_what_was_left_out_is_there_when_something_is_compiled():
    done = ended("owned")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_in_a_program_of_others_numba_is_left_alone():
    done = ended("library")
    assert done.returncode == 0, done.stderr
