"""Fetches the ACAS Xu networks and properties of VNN-COMP 2021 into models/external/acasxu.

The digests are those of the files that redy is tested with. The origin's addresses come from the benchmark's published
list of instances and have not been tried from where this script was written; if one has moved, give the folder that
holds the files as `--origin URL`, also as file:///...
"""

from __future__ import annotations

from download import run

ORIGIN = "https://raw.githubusercontent.com/stanleybak/vnncomp2021/6917f9f9295d81f005e89228fb9459536d4492ff/benchmarks/acasxu"

if __name__ == "__main__":
    run(ORIGIN, "fetch_acas.sha256", "acasxu")
