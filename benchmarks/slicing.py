"""What families of slices cost and gain: docs/benchmarks-slicing.md quotes what this prints.

python benchmarks/slicing.py store STORE     a (perhaps unfinished) store of the 8-per-input grid of ACAS Xu 1_1
python benchmarks/slicing.py sample          random slices of that grid, searched here
python benchmarks/slicing.py adaptive        grid against adaptive cuts
python benchmarks/slicing.py overhead        what executor and store add to the work
python benchmarks/slicing.py workers         the throughput of two workers against one

STORE is what `redy slice ACASXU_run2a_1_1.onnx --bounds BOX --splits 8 --jobs 2 --store STORE` filled.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from redy import Box, Family
from redy.formats.onnx_read import read_network
from redy.formats.onnx_write import write_network
from redy.rewrite import fuse
from redy.runs.executor import Here, Processes, chunked
from redy.runs.store import Store
from redy.slicing.adaptive import REFINED, adaptive_cut
from redy.slicing.cuts import Cut, GridCut
from redy.slicing.export_c import c_source, program_source
from redy.slicing.export_onnx import flat_model, session
from redy.slicing.program import program_of
from redy.slicing.pruning import pruned
from redy.slicing.run import COLUMNS
from redy.slicing.work import SliceOptions, SliceRecord, SliceWork

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external") / "acasxu"
MODEL = DATA / "ACASXU_run2a_1_1.onnx"
LOWER, UPPER = [-0.328422877, -0.5, -0.5, -0.5, -0.5], [0.679857769, 0.5, 0.5, 0.5, 0.5]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="?", default="overhead", choices=["store", "sample", "adaptive", "overhead", "workers"]
    )
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--slices", type=int, default=400, help="slices drawn: to search, or for the folded form and C")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument(
        "--grid", type=int, default=4, help="parts per input of the grid that adaptive cuts are held to"
    )
    parser.add_argument("--work", type=int, default=300_000_000, help="search per slice, for adaptive and sample")
    parser.add_argument("--drawn", type=int, default=100, help="points whose slices are searched, for adaptive")
    parser.add_argument("--tolerance", type=float, help="how far outputs may be off, for sample")
    parser.add_argument("--jobs", type=int, default=2, help="processes, for adaptive and sample")
    arguments = parser.parse_args()
    network = read_network(MODEL)
    box = Box(np.reshape(LOWER, network.input.shape), np.reshape(UPPER, network.input.shape))
    if arguments.what == "store":
        of_store(arguments.store, GridCut.of(box, (8,) * 5), arguments.slices, arguments.points)
    elif arguments.what == "sample":
        tolerance = None if arguments.tolerance is None else (arguments.tolerance,) * 5
        options = SliceOptions(budget=arguments.work, tolerance=tolerance)
        sample(GridCut.of(box, (8,) * 5), arguments.slices, options, arguments.jobs)
    elif arguments.what == "adaptive":
        adaptive(box, arguments.grid, arguments.work, arguments.drawn, arguments.jobs)
    elif arguments.what == "workers":
        throughput(box, arguments.slices)
    else:
        overhead()


def shares(records: dict[int, SliceRecord]) -> None:
    """What the searches proved, and what they cost."""
    stuck = np.array([record.stuck for record in records.values()]) / 300
    seconds = np.array([record.seconds for record in records.values()])
    undecided = np.array([record.undecided for record in records.values()])
    quantiles = np.quantile(stuck, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    print(f"slices finished: {len(records)}, {sum(not record.complete for record in records.values())} partial")
    print(
        f"units stuck in one phase: mean {stuck.mean():.2%}; quantiles 0 5 25 50 75 95 100%: {np.round(quantiles, 3)}"
    )
    print(f"undecided units a slice: mean {undecided.mean():.2f}")
    print(
        f"CPU seconds: {seconds.sum():.0f} in all, a slice {seconds.mean():.3f} mean, {np.median(seconds):.3f} median"
    )


def sample(cut: GridCut, slices: int, options: SliceOptions, jobs: int) -> None:
    """The shares of random slices, and their multiply-adds in both forms with standard errors of the means."""
    drawn = np.random.default_rng(0).choice(len(cut), slices, replace=False)
    search = SliceWork(read_network(MODEL), cut, options)
    records = dict(Processes(jobs).run(search, chunked(drawn.tolist(), 8)))
    shares(records)
    everywhere = [records.get(i) or unreduced(i) for i in range(len(cut))]
    family = Family.from_records(MODEL.read_bytes(), cut, everywhere, tolerance=options.tolerance)
    if options.tolerance is not None:
        print(f"lines: {np.mean([record.relaxed for record in records.values()]):.2f} a slice; {family.guarantee}")
        print(f"units not needed: mean {family.removed()[drawn].mean():.2%}")
        agreement(family, drawn, 200_000)
    shared = family.shared_macs()[drawn]
    folded = np.array([family.mask_program(int(family.slice_mask[i]), "folded").macs for i in drawn])
    for form, macs in (("shared", shared), ("folded", folded)):
        part = macs / family.whole.macs
        error = part.std(ddof=1) / np.sqrt(len(part))
        print(f"multiply-adds, {form}: mean {part.mean():.2%} +- {error:.2%}, median {np.median(part):.2%}")
    if options.tolerance is not None:
        chosen = set(drawn[:300].tolist())
        few = [record if record.index in chosen else unreduced(record.index) for record in everywhere]
        speed(Family.from_records(MODEL.read_bytes(), cut, few, tolerance=options.tolerance), drawn[:300])


def of_store(store: Path, cut: GridCut, slices: int, count: int) -> None:
    """Share, sizes, agreement, cost and speed. Slices that the store lacks stand in the family unreduced."""
    rows = sqlite3.connect(f"file:{store}?mode=ro", uri=True).execute("SELECT * FROM results ORDER BY 1").fetchall()
    records = {row[0]: replace(SliceRecord(*row), complete=bool(row[4])) for row in rows}
    done = np.array(sorted(records))
    shares(records)
    family = Family.from_records(MODEL.read_bytes(), cut, [records.get(i) or unreduced(i) for i in range(len(cut))])
    with tempfile.TemporaryDirectory() as folder:
        family.save(Path(folder) / "family.redy")
        size = (Path(folder) / "family.redy").stat().st_size
    print(f"shared form: {len(family.masks)} distinct masks, {size} bytes as a file ({size / len(done):.1f} a slice)")
    shared = family.shared_macs()[done] / family.whole.macs
    print(f"multiply-adds, shared form: mean {shared.mean():.2%}, median {np.median(shared):.2%}")
    agreement(family, done, count)
    drawn = np.random.default_rng(0).choice(done, min(slices, len(done)), replace=False)
    folded(family, drawn)
    chosen = {int(i) for i in drawn}
    part = [records[i] if i in chosen else unreduced(i) for i in range(len(cut))]
    speed(Family.from_records(MODEL.read_bytes(), cut, part), drawn)


def unreduced(index: int) -> SliceRecord:
    return SliceRecord(index, b"\xff" * 75, 0, 300, False, 0, 0.0)


def drawn_points(
    cut: Cut, slices: np.ndarray, count: int, rng: np.random.Generator, *, on_faces: bool = True
) -> np.ndarray:
    """Uniform points of the slices; every tenth has some coordinates on faces of its slice, some of these corners."""
    edges = [np.concatenate([[lo], face, [hi]]) for lo, face, hi in zip(LOWER, cut.faces, UPPER, strict=True)]
    place = np.stack(np.unravel_index(rng.choice(slices, count), cut.grid.splits), axis=1)
    low, high = (np.stack([edges[k][place[:, k] + end] for k in range(5)], axis=1) for end in (0, 1))
    x = low + (1e-4 + (1 - 2e-4) * rng.random((count, 5))) * (high - low)
    if not on_faces:
        return x.astype(np.float32)
    faces = np.where(rng.random((count, 5)) < 0.5, low, high)
    often = np.where(rng.random(count) < 0.3, 1.0, 0.3)[:, None]
    on = (rng.random((count, 5)) < often) & (np.arange(count) % 10 == 0)[:, None]
    return np.clip(np.where(on, faces, x), LOWER, UPPER).astype(np.float32)


def agreement(family: Family, slices: np.ndarray, count: int) -> None:
    original, rng = session_of_original(), np.random.default_rng(5)
    worst, scale = 0.0, 0.0
    for start in range(0, count, 20_000):
        x = drawn_points(family.cut, slices, min(20_000, count - start), rng)
        y = original(x)
        worst = max(worst, float(np.abs(family.evaluate(x, engine="onnxruntime") - y).max()))
        scale = max(scale, float(np.abs(y).max()))
    print(f"agreement with the original in onnxruntime, {count} points: {worst:.3g} of outputs up to {scale:.3g}")


def session_of_original():
    run = session(onnx.load(MODEL))
    # The network takes one point at a time; as a batch it is the whole program of the family.
    name = run.get_inputs()[0].name
    if run.get_inputs()[0].shape[0] == 1:
        batch = session(flat_model(program_of(fuse(read_network(MODEL)))))
        probe = np.random.default_rng(0).uniform(LOWER, UPPER, (200, 5)).astype(np.float32)
        one = np.concatenate([run.run(None, {name: p.reshape(1, 1, 1, 5)})[0].reshape(1, 5) for p in probe])
        assert np.abs(one - batch.run(None, {"x": probe})[0]).max() < 1e-6
        return lambda x: batch.run(None, {"x": x})[0]
    return lambda x: run.run(None, {name: x})[0]


def folded(family: Family, drawn: np.ndarray) -> None:
    masks = np.unique(family.slice_mask[drawn])
    macs = np.array([family.mask_program(int(family.slice_mask[i]), "folded").macs for i in drawn]) / family.whole.macs
    size = family.sizes()
    stored = sum(array.nbytes for array in family.pack(masks).values()) / len(masks) + size.masks
    with tempfile.TemporaryDirectory() as folder:
        path, files = Path(folder) / "slice.onnx", 0
        for mask in masks:
            write_network(family.folded_network(int(mask)), path)
            files += path.stat().st_size
    print(f"folded form, {len(drawn)} slices drawn: multiply-adds mean {macs.mean():.2%}, median {np.median(macs):.2%}")
    print(
        f"  bytes a slice: {stored:.0f} stored, {files / len(masks):.0f} as ONNX files, "
        f"{size.masks:.0f} when folded at first use"
    )
    print(f"  the original: {len(family.original)} bytes as ONNX, {4 * family.whole.parameters} of weights")


DRIVER = """
#include <stdio.h>
#include <time.h>
int redy_evaluate(const float x[{inputs}], float y[{outputs}]);
static float x[200000][{inputs}], y[200000][{outputs}];
int main(void)
{{
    size_t n = fread(x, sizeof x[0], 200000, stdin), i;
    int round;
    clock_t begin = 0;
    for (round = 0; round < 11; round++) {{
        if (round == 1)
            begin = clock();
        for (i = 0; i < n; i++)
            if (redy_evaluate(x[i], y[i]) < 0)
                return 1;
    }}
    fprintf(stderr, "%.9g", (double)(clock() - begin) / CLOCKS_PER_SEC / 10 / (double)n);
    return fwrite(y, sizeof y[0], n, stdout) == n ? 0 : 1;
}}
"""


def speed(family: Family, drawn: np.ndarray, count: int = 100_000) -> None:
    """Time per point, exports compiled with the same flags, paired in rounds; then numpy and onnxruntime."""
    # Without faces: their points belong to neighbours, of which this family knows nothing.
    x = drawn_points(family.cut, drawn, count, np.random.default_rng(6), on_faces=False)
    sources = {
        "original": program_source(family),
        "shared": c_source(family, "shared"),
        "folded": c_source(family, "folded"),
        "original in the code of the shared form": program_source(family, "shared"),
    }
    with tempfile.TemporaryDirectory() as folder:
        times: dict[str, list[float]] = {name: [] for name in sources}
        Path(folder, "driver.c").write_text(DRIVER.format(inputs=x.shape[1], outputs=5), encoding="ascii")
        for name, source in sources.items():
            Path(folder, f"{name}.c").write_text(source, encoding="ascii")
            flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror"]
            subprocess.run(["gcc", *flags, "driver.c", f"{name}.c", "-o", name], cwd=folder, check=True)
        outputs = {}
        for _ in range(7):
            for name in sources:
                done = subprocess.run([Path(folder, name)], input=x.tobytes(), capture_output=True, check=True)
                times[name].append(float(done.stderr))
                outputs[name] = np.frombuffer(done.stdout, np.float32).reshape(-1, 5)
    median = {name: float(np.median(values)) for name, values in times.items()}
    own = median["original in the code of the shared form"] / median["shared"]
    same = {form: np.array_equal(outputs[form], family.evaluate(x, form=form)) for form in ("shared", "folded")}
    print(
        f"C99, {count} points, CPU time of redy_evaluate: "
        + ", ".join(f"{n} {1e6 * t:.3f} us" for n, t in median.items())
    )
    print("  faster than the original: " + ", ".join(f"{n} {median['original'] / median[n]:.2f}x" for n in same))
    print(f"  shared, against the original in the code of the shared form: {own:.2f}x")
    gap = {form: f"{np.abs(outputs[form] - outputs['original']).max():.2g}" for form in same}
    print(f"  largest difference from the original: {gap}")
    print(f"  bit for bit the numpy float32 evaluation: {same}")
    for engine in ("numpy", "onnxruntime"):
        baseline = family.whole.evaluate if engine == "numpy" else session_of_original()
        for size in (20_000, count):
            base = best(baseline, x[:size])
            for form in ("shared", "folded"):
                spent = best(partial(family.evaluate, form=form, engine=engine), x[:size])
                print(f"  {engine}, {form}, batch {size}: {base / spent:.2f}x the speed of the original")


def best(call, x: np.ndarray, rounds: int = 5) -> float:
    """CPU seconds of the fastest round after a first one."""
    call(x)
    spent = []
    for _ in range(rounds):
        begin = time.process_time()
        call(x)
        spent.append(time.process_time() - begin)
    return min(spent)


def adaptive(box: Box, parts: int, work: int, count: int, jobs: int) -> None:
    """Mean multiply-adds of the shared form at random points, the same for grid and adaptive cuts.

    Of the grid only the slices of these points are searched; of the tree every leaf, since pruning needs them all. The
    tree has as many leaves as the grid has slices, so both cost the same search.
    """
    network = read_network(MODEL)
    flat = box.sample(count, np.random.default_rng(9)).astype(np.float32).reshape(count, -1)

    def searched(cut: Cut, items: np.ndarray) -> list[SliceRecord]:
        run = Processes(jobs).run(SliceWork(network, cut, SliceOptions(budget=work)), chunked(items.tolist(), 4))
        found = dict(run)
        seconds = sum(record.seconds for record in found.values()) / len(found)
        print(f"  {len(found)} slices searched, {seconds:.2f} CPU s each", flush=True)
        return [found.get(i) or unreduced(i) for i in range(len(cut))]

    def cost(cut: Cut, records: list[SliceRecord], name: str) -> float:
        family = Family.from_records(MODEL.read_bytes(), cut, records)
        share = family.shared_macs()[cut.locate(flat)] / family.whole.macs
        size = family.masks.nbytes + 2 * len(family)
        print(f"{name}: {len(cut)} slices, {size} bytes of masks, multiply-adds {share.mean():.2%}", flush=True)
        return float(share.mean())

    grid_cut = GridCut.of(box, (parts,) * box.size)
    grid = cost(grid_cut, searched(grid_cut, np.unique(grid_cut.locate(flat))), "grid")
    begin = time.process_time()
    tree = adaptive_cut(network, box, parts**box.size)
    print(f"tree of {len(tree)} leaves grown in {time.process_time() - begin:.0f} CPU s", flush=True)
    records = searched(tree, np.arange(len(tree)))
    for slices in (len(grid_cut), *(len(grid_cut) // k for k in (2, REFINED, 4))):
        ratio = cost(*pruned(network, tree, records, slices), "adaptive") / grid
        print(f"  adaptive / grid: {ratio:.3f}", flush=True)


@dataclass(frozen=True)
class Nothing:
    """The result of a slice without the work."""

    units: int = 300

    def __call__(self, index: int) -> SliceRecord:
        return unreduced(index)


@dataclass(frozen=True)
class Span:
    """A stretch of a process's life, in seconds: by the clock, on a core, and ready to run while no core was free."""

    wall: float
    core: float
    queued: float

    def __sub__(self, other: Span) -> Span:
        return Span(self.wall - other.wall, self.core - other.core, self.queued - other.queued)

    @property
    def idle(self) -> float:
        """The share of the time in which the process waited for work: what the executor answers for."""
        return max(0.0, 1.0 - (self.core + self.queued) / self.wall)


def now() -> Span:
    """Where this process stands (Linux: /proc/self/schedstat holds nanoseconds on a core and in the queue for one)."""
    core, queued = (int(n) / 1e9 for n in Path("/proc/self/schedstat").read_text().split()[:2])
    return Span(time.perf_counter(), core, queued)


@dataclass(frozen=True)
class Watched:
    """Work with the worker's process and its state before and after."""

    work: SliceWork

    def __call__(self, index: int) -> tuple[int, Span, Span]:
        before = now()
        self.work(index)
        return os.getpid(), before, now()


def throughput(box: Box, slices: int) -> None:
    """Two workers against one, in rounds that alternate; a busy machine is told apart from a bad executor."""
    cut = GridCut.of(box, (8,) * 5)
    drawn = np.random.default_rng(0).choice(len(cut), slices, replace=False).tolist()
    watched = Watched(SliceWork(read_network(MODEL), cut, SliceOptions(budget=10_000_000)))
    rates: dict[int, list[float]] = {1: [], 2: []}
    free: dict[int, list[float]] = {1: [], 2: []}
    for jobs in (1, 2) * 3:
        seen: dict[int, list[tuple[Span, Span]]] = {}
        for _, (pid, before, after) in Processes(jobs).run(watched, chunked(drawn, max(1, slices // (8 * jobs)))):
            seen.setdefault(pid, []).append((before, after))
        # A worker's first slice loads the compiled kernels; 32,768 slices do that once.
        spans = [(len(steps) - 1, steps[-1][1] - steps[0][1]) for steps in seen.values() if len(steps) > 1]
        rates[jobs].append(sum(count / span.wall for count, span in spans))
        free[jobs].append(sum(count / (span.core / (1 - span.idle)) for count, span in spans))
        core, queued, idle = (
            np.mean([share(span) for _, span in spans])
            for share in (lambda s: s.core / s.wall, lambda s: s.queued / s.wall, lambda s: s.idle)
        )
        print(
            f"{jobs} workers: {rates[jobs][-1]:.1f} slices a second; of its time a worker was {core:.1%} on a core, "
            f"{queued:.1%} queued for one, {idle:.2%} without work",
            flush=True,
        )
    for name, rate in (("by the clock", rates), ("had no worker queued for a core", free)):
        ratio = np.median(rate[2]) / np.median(rate[1])
        print(f"2 workers / 1 worker, {name}: {ratio:.2f}x the throughput (median of three rounds)")


def overhead() -> None:
    """What executor and store take for slices that need no work."""
    items = range(5000)
    for name, executor in (("this process", Here()), ("one process more", Processes(1))):
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "s", COLUMNS, {}) as store:
            begin = time.process_time(), time.perf_counter()
            for _, record in executor.run(Nothing(), chunked(items, 32)):
                store.add([astuple(record)])
            cpu, wall = time.process_time() - begin[0], time.perf_counter() - begin[1]
        print(f"{name}: {1e6 * cpu / len(items):.0f} us CPU and {1e6 * wall / len(items):.0f} us wall a slice")


if __name__ == "__main__":
    main()
