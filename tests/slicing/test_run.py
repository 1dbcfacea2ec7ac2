"""Runs: the same results however they are executed, nothing lost or done twice, refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_family import BOX, small_model

from redy.errors import CheckFailed, InputError
from redy.formats.onnx_read import read_network
from redy.runs.executor import Here, Processes, chunked
from redy.runs.store import Store
from redy.slicing.cuts import GridCut
from redy.slicing.masks import KEPT, codes_of, pack, unpack
from redy.slicing.run import COLUMNS, run_slices
from redy.slicing.work import SliceOptions, SliceRecord, SliceWork


def work(splits: tuple[int, ...] = (4, 3), **options: object) -> SliceWork:
    network = read_network(onnx.load_from_string(small_model()))
    return SliceWork(network, GridCut.of(BOX, splits), SliceOptions(samples=64, **options))


def results(records: list[SliceRecord]) -> list[SliceRecord]:
    """What must be the same on every run."""
    return [replace(record, seconds=0.0) for record in records]


def run(task: SliceWork, path: Path, executor: object = None, **options: object) -> list[SliceRecord]:
    with Store(path, COLUMNS, task.digests, resume=True) as store:
        return results(run_slices(task, executor or Here(), store, **options))


def test_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    alone = run(work(), tmp_path / "a")
    assert [record.index for record in alone] == list(range(12))
    assert run(work(), tmp_path / "b", Processes(2), jobs=2) == alone


def test_resume_does_only_what_is_open(tmp_path: Path) -> None:
    whole = run(work(), tmp_path / "whole")
    run(work(), tmp_path / "parts", only=range(3, 7))
    done: list[int] = []

    class Counting(Here):
        def run(self, task, chunks):  # type: ignore[no-untyped-def]
            done.extend(item for chunk in chunks for item in chunk)
            return super().run(task, chunks)

    assert run(work(), tmp_path / "parts", Counting()) == whole
    assert sorted(done) == [0, 1, 2, *range(7, 12)]


def test_a_slice_out_of_time_is_partial_and_sound(tmp_path: Path) -> None:
    whole, hasty = run(work(), tmp_path / "a"), run(work(budget=0), tmp_path / "b")
    network = work().network
    for full, cut_short in zip(whole, hasty, strict=True):
        a, b = (unpack(np.frombuffer(r.mask, np.uint8)[None], network.units)[0] for r in (full, cut_short))
        assert ((b == KEPT) | (a == b)).all()
    assert any(not record.complete for record in hasty)


def test_another_model_box_cut_or_option_is_refused(tmp_path: Path) -> None:
    run(work(), tmp_path / "s")
    other = work()
    network = read_network(onnx.load_from_string(small_model(5)))
    for changed, word in (
        (replace(other, network=network), "model"),
        (work((3, 4)), "cut"),
        (work(seed=1), "options"),
    ):
        with pytest.raises(InputError, match=word):
            Store(tmp_path / "s", COLUMNS, changed.digests, resume=True)
    with pytest.raises(InputError, match="--resume"):
        Store(tmp_path / "s", COLUMNS, other.digests)
    (tmp_path / "text").write_text("no database at all, but some text " * 40)
    with pytest.raises(InputError, match="not a results store"):
        Store(tmp_path / "text", COLUMNS, other.digests)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    digests = work().digests
    with Store(tmp_path / "s", COLUMNS, digests), pytest.raises(InputError, match="another run"):
        Store(tmp_path / "s", COLUMNS, digests, resume=True)


def test_csv(tmp_path: Path) -> None:
    task = work((2, 1))
    with Store(tmp_path / "s", COLUMNS, task.digests) as store:
        records = run_slices(task, Here(), store)
        store.export_csv(tmp_path / "s.csv")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert [line.split(",")[1] for line in lines[1:]] == [record.mask.hex() for record in records]


@dataclass(frozen=True)
class Dies:
    """Kills its process at `item`, once if `once` names a file, else always."""

    item: int
    once: Path | None

    def __call__(self, item: int) -> int:
        if item == self.item and (self.once is None or not self.once.exists()):
            if self.once is not None:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item == -1:
            raise InputError("item -1: cannot be used")
        return item * item


def test_a_dead_workers_chunk_is_run_again(tmp_path: Path) -> None:
    chunks = chunked(range(20), 4)
    found = list(Processes(2).run(Dies(9, tmp_path / "died"), chunks))
    assert (tmp_path / "died").exists()
    assert sorted(found) == [(k, k * k) for k in range(20)]


def test_an_item_that_always_kills_ends_the_run() -> None:
    with pytest.raises(CheckFailed, match="item 2"):
        list(Processes(2).run(Dies(2, None), chunked(range(6), 2)))


def test_an_error_of_the_work_arrives() -> None:
    with pytest.raises(InputError, match="item -1"):
        list(Processes(1).run(Dies(99, None), [[-1]]))


def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(small_model(2, (2, 30, 30, 30, 3)))
    arguments = ["slice", str(tmp_path / "m.onnx"), "--bounds", "[-1,1]", "--splits", "5", "--work", "1000000"]
    arguments += ["--resume", "--quiet"]
    command = [sys.executable, "-m", "redy", *arguments]
    for pause in (1.5, 2.0, 2.5):
        process = subprocess.Popen([*command, "-o", str(tmp_path / "a.redy")], start_new_session=True)
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "-o", str(tmp_path / "a.redy"), "--jobs", "2"], check=True, timeout=300)
    subprocess.run([*command, "-o", str(tmp_path / "b.redy")], check=True, timeout=300)
    assert (tmp_path / "a.redy").read_bytes() == (tmp_path / "b.redy").read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_gives_the_same_also_when_a_worker_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed", reason="pip install 'redy[cluster]'")
    from redy.runs.cluster import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import `Dies` from here
    alone = run(work(), tmp_path / "alone")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        address = cluster.scheduler_address
        assert run(work(), tmp_path / "cluster", Cluster(address)) == alone
        found = list(Cluster(address).run(Dies(3, tmp_path / "died"), chunked(range(8), 2)))
    assert (tmp_path / "died").exists()
    assert sorted(found) == [(k, k * k) for k in range(8)]


def test_no_scheduler() -> None:
    pytest.importorskip("distributed")
    from redy.runs.cluster import Cluster

    with pytest.raises(InputError, match="no Dask scheduler"):
        list(Cluster("tcp://127.0.0.1:9", connect_timeout=0.5).run(Dies(0, None), [[1]]))


def test_masks_pack_two_bits_a_unit() -> None:
    codes = np.random.default_rng(0).integers(0, 4, 37).astype(np.uint8)
    packed = pack(codes)
    assert len(packed) == 10
    assert np.array_equal(unpack(np.frombuffer(packed, np.uint8)[None], 37)[0], codes)
    assert (codes_of(work().network, {}) == KEPT).all()
