"""Progress: what a line says, that time that is left converges after --resume, and what an interruption leaves."""

from __future__ import annotations

import io
import json

import pytest

from redy.cli import main
from redy.cli.interrupts import explained
from redy.cli.main import run
from redy.cli.progress import Display


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("there", [0, 900])
def test_the_rate_counts_what_this_process_did(there):
    clock = Clock()
    display = Display("slices", 1000, there, quiet=True, clock=clock)
    assert display.remaining is None
    for _ in range(50):
        clock.now += 2.0
        display.advance()
        assert display.rate == pytest.approx(0.5)
        assert display.remaining == pytest.approx(2.0 * (1000 - display.done))
    assert display.line().startswith(f"{there + 50:,} of 1,000 slices, 0.5/s, ")


def test_a_slow_rate_is_told_by_the_minute():
    clock = Clock()
    display = Display("jobs", 3, quiet=True, clock=clock)
    clock.now = 3600.0
    display.advance(text="a.onnx")
    assert display.line() == "1 of 3 jobs, 0.0/min, 2:00:00 left, a.onnx"
    clock.now = 60.0
    assert display.line() == "1 of 3 jobs, 1.0/min, 0:02:00 left, a.onnx"


def test_one_thing_is_not_counted():
    display = Display(quiet=True)
    display.step("phase")
    assert display.line() == "phase"


def test_without_a_terminal_a_step_is_one_line(capsys):
    with Display("boxes", 2) as display:
        for step in ("phase", "phase", "forward [0]", "forward [0]"):
            display.step(step)
        display.say("[bold]kept[/bold]")
    assert capsys.readouterr().err == "0 of 2 boxes, phase\n0 of 2 boxes, forward [0]\n[bold]kept[/bold]\n"


def test_on_a_terminal_the_display_is_gone_before_results_are_printed(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Display("boxes", 2) as display:
        display.step("phase")
    text = terminal.getvalue()
    assert "phase" in text
    assert text.endswith(("\x1b[2K", "\x1b[1A\x1b[2K", "\r\x1b[2K"))


def test_an_interruption_says_what_is_kept(capsys, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        with explained(lambda: "2 of 3 jobs are kept in x.sqlite; --resume makes the others"):
            raise KeyboardInterrupt

    monkeypatch.setattr(main.redy, "main", interrupted)
    assert run(["batch"]) == 130
    told = capsys.readouterr().err
    assert told == "error: interrupted; 2 of 3 jobs are kept in x.sqlite; --resume makes the others\n"


def test_an_interrupted_batch_goes_on(models, tmp_path, capsys, monkeypatch):
    from redy.cli import batch_work

    jobs = tmp_path / "jobs.jsonl"
    box = str(models / "avoidance_close.box.json")
    both = [{"model": str(models / "avoidance.onnx"), "bounds": box, "effort": "quick", "criteria": "phase",
             "output": f"{k}.onnx"} for k in range(2)]  # fmt: skip
    jobs.write_text("\n".join(map(json.dumps, both)))
    reduced = batch_work.reduced

    def second_is_interrupted(job):
        if job.output.endswith("1.onnx"):
            raise KeyboardInterrupt
        return reduced(job)

    asked = ["batch", str(jobs), "-o", str(tmp_path / "out"), "--jobs", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(batch_work, "reduced", second_is_interrupted)
        assert run(asked) == 130
    told = capsys.readouterr().err
    assert "interrupted; 1 of 2 jobs are kept in " in told
    assert run([*asked, "--resume"]) == 0
    assert "2 of 2 jobs" in capsys.readouterr().err
