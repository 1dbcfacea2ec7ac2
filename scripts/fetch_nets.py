"""Fetches the image networks of VNN-COMP 2021 that redy is tested with into models/external/nets.

The digests are those of the files that redy is tested with. The origin's addresses come from the benchmark's published
lists of instances and have not been tried from where this script was written; if one has moved, give the folder that
holds the benchmarks as `--origin URL`, also as file:///... The `exact_*` networks of the tests were converted from the
PyTorch checkpoints of github.com/yuxwind/ExactCompression and cannot be fetched as ONNX; tests that need them skip.
"""

from __future__ import annotations

from download import run

ORIGIN = "https://raw.githubusercontent.com/stanleybak/vnncomp2021/main/benchmarks"

if __name__ == "__main__":
    run(ORIGIN, "fetch_nets.sha256", "nets")
