"""A Ctrl-C that something swallowed is raised at the next step."""

from __future__ import annotations

import os
import signal

import pytest

from redy.cli import interrupts
from redy.cli.running import _progress


def test_a_swallowed_interrupt_ends_the_next_step(monkeypatch, capsys):
    monkeypatch.setattr(interrupts, "_seen", [])
    before = signal.getsignal(signal.SIGINT)
    interrupts.install()
    try:
        with _progress(True, 0, 1) as say:
            say("first")
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                say("second")
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == ""
