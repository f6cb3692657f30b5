"""`watch` beside a real run that another process steers."""

from __future__ import annotations

import signal
from contextlib import closing

import pytest

from hpc_hpo.journal import read_events, replay
from tests.e2e.conftest import wait_until
from tests.terminal import ESCAPE, Terminal

pytestmark = pytest.mark.slow


def test_that_a_running_study_is_watched_from_terminals_and_a_pipe_until_it_ends(workshop):
    workshop.write(trials=10, steps=80, walltime="60s")
    folder = workshop.folder / "sleepy"
    pipe = workshop.start("watch", "study.yaml")
    run = workshop.start("run", "study.yaml")
    journal = folder / "journal.jsonl"
    wait_until(lambda: journal.exists() and b'"e":"end"' in journal.read_bytes(), 60)
    with (
        closing(Terminal(folder, 100, 30)) as wide,
        closing(Terminal(folder, 80, 24, TERM="dumb")) as dumb,
        closing(Terminal(folder, 80, 24)) as left,
    ):
        picture = ESCAPE.sub("", wide.until("\u256f"))
        assert "of 10" in picture and "2 of 2 busy" in picture and "left  2 workers" in picture
        left.until("\u256f")
        left.process.send_signal(signal.SIGINT)
        left.until("\x1b[?25h")
        assert left.process.wait(timeout=20) == 130
        wide.resize(64, 20)
        wide.process.send_signal(signal.SIGWINCH)
        wide.until("\x1b[2J")
        lines = ESCAPE.sub("", wide.until("\u256f")).splitlines()
        assert {len(line) for line in lines if line[:1] == "\u2502"} == {64}
        assert run.poll() is None, "it goes on, whoever leaves"
        wide.until("sleepy: done", 90)
        dumb.until("sleepy: done", 90)
        assert wide.process.wait(timeout=20) == dumb.process.wait(timeout=20) == 0
        assert "10 of 10" in ESCAPE.sub("", wide.seen)
        assert "\x1b" not in dumb.seen and "0 failed, 0 paused; best " in dumb.seen
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    told, _ = pipe.communicate(timeout=30)
    assert pipe.returncode == 0 and "\x1b" not in told
    lines = [line[9:] if line[2:3] == ":" else line for line in told.splitlines()]
    assert lines[0] == "the study has not begun" and lines[-1] == "sleepy: done"
    assert "block 1.0 running" in lines
    best = replay(read_events(journal)).best()
    last = [line for line in lines if line.startswith("best ")][-1]
    assert last.startswith(f"best {best.loss:.6g} by trial {best.id} ")
