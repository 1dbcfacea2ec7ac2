"""A Ctrl-C whose exception was lost is raised at the next step."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from redy.cli import interrupts
from redy.cli.progress import Display


def test_a_lost_interrupt_ends_the_next_step(monkeypatch, capsys):
    monkeypatch.setattr(interrupts, "_seen", [])
    before = signal.getsignal(signal.SIGINT)
    interrupts.install()
    try:
        with Display(quiet=True) as display:
            display.step("first")
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                display.step("second")
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == ""


def test_a_thread_that_keeps_results_is_not_interrupted(monkeypatch):
    monkeypatch.setattr(interrupts, "_seen", [signal.SIGINT])
    finished = []

    def keep() -> None:
        interrupts.check()
        finished.append(True)

    thread = threading.Thread(target=keep)
    thread.start()
    thread.join()
    assert finished == [True]
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
