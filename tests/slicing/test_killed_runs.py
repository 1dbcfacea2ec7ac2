"""Runs with two workers killed at random moments, and workers lost: nothing is lost, done twice or different."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from test_family import small_model

from redy.formats.onnx_read import read_network
from redy.runs.executor import chunked

KILLS = 25
REDY = [sys.executable, "-m", "redy"]


def killed_often(command: list[str], seed: int, done: Path) -> int:
    """Start a command again and again and kill it with all its workers at a random moment; how often it was killed."""
    moments, kills = random.Random(seed), 0  # noqa: S311 - nothing secret
    longest = 2.0
    while kills < KILLS:
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.3, longest))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            process.wait()
            # Later kills come later in the run, whatever the machine's speed.
            longest += 0.2
            continue
        assert process.returncode == 0
        assert done.exists()
        return kills
    return kills


def rows(store: Path, columns: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(store)
    found = connection.execute(f"SELECT {columns} FROM results ORDER BY 1").fetchall()  # noqa: S608
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return found


@pytest.mark.slow
def test_slices(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(small_model(2, (2, 30, 30, 30, 3)))
    command = [*REDY, "slice", str(tmp_path / "m.onnx"), "--bounds", "[-1,1]", "--splits", "20", "--resume", "--quiet"]
    broken = [*command, "-o", str(tmp_path / "a.redy"), "--jobs", "2"]
    assert killed_often(broken, 1, tmp_path / "a.redy") > 1
    subprocess.run(broken, check=True, timeout=600)
    subprocess.run([*command, "-o", str(tmp_path / "b.redy")], check=True, timeout=600)
    assert (tmp_path / "a.redy").read_bytes() == (tmp_path / "b.redy").read_bytes()
    columns = "slice, mask, stuck, undecided, complete, boxes, winner, relaxed, lines"
    whole = rows(tmp_path / "b.redy.sqlite", columns)
    assert rows(tmp_path / "a.redy.sqlite", columns) == whole
    assert [row[0] for row in whole] == list(range(400))


@pytest.mark.slow
def test_jobs(tmp_path: Path) -> None:
    for seed in range(4):
        (tmp_path / f"{seed}.onnx").write_bytes(small_model(seed))
    boxes = [f"[{low / 10},{low / 10 + 0.5}]" for low in range(-10, 0)]
    listed = [f'{k % 4}.onnx,"{box}",{n}-{k}.onnx' for n, box in enumerate(boxes) for k in range(4)]
    (tmp_path / "jobs.csv").write_text("\n".join(["model,bounds,output", *listed]))
    command = [*REDY, "batch", str(tmp_path / "jobs.csv"), "--quiet", "--resume"]
    broken, report = [*command, "-o", str(tmp_path / "a"), "--jobs", "2"], tmp_path / "a.json"
    assert killed_often([*broken, "--report", str(report)], 2, report) > 1
    subprocess.run(broken, check=True, timeout=600)
    subprocess.run([*command, "-o", str(tmp_path / "b")], check=True, timeout=600)
    columns = "job, model, bounds, status, parameters_after, undecided, model_sha256, bounds_sha256"
    whole = rows(tmp_path / "b/results.sqlite", columns)
    assert rows(tmp_path / "a/results.sqlite", columns) == whole
    assert [row[3] for row in whole] == ["done"] * 40
    x = np.linspace(-0.9, -0.6, 14).reshape(7, 2)
    for name in (path.name for path in (tmp_path / "b").glob("*.onnx")):
        one, other = (read_network(tmp_path / folder / name) for folder in "ab")
        assert np.array_equal(one.evaluate(x), other.evaluate(x))


@dataclass(frozen=True)
class DiesAt:
    """Squares; at some items, once each, it takes its worker with it."""

    items: frozenset[int]
    folder: Path

    def __call__(self, item: int) -> int:
        if item in self.items and not (self.folder / str(item)).exists():
            (self.folder / str(item)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return item * item


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_five_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="pip install 'redy[cluster]'")
    from redy.runs.cluster import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    dies = DiesAt(frozenset({3, 40, 41, 77, 119}), tmp_path)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        found = list(Cluster(cluster.scheduler_address).run(dies, chunked(range(120), 2)))
    assert {path.name for path in tmp_path.iterdir()} == {str(item) for item in dies.items}
    assert sorted(found) == [(k, k * k) for k in range(120)]
