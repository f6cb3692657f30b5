"""`watch`: it looks on, changes nothing, and ends with the study."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hpc_hpo.cli.watch import Watch
from hpc_hpo.clock import SystemClock
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import seal
from hpc_hpo.journal import Event
from tests import events as ev
from tests.cli.conftest import HISTORY
from tests.terminal import ESCAPE, Terminal

Command = Callable[..., Result]
Steer = Callable[[StudyFolder], None]
DONE = {"e": "stop", "run": 1, "at": ev.START + 70, "reason": "budget", "cpu": 0.5}


def picture_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Each file with what would change if it were written."""
    return {
        str(p): (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes() if p.is_file() else b"")
        for p in folder.rglob("*")
    }


class Play(SystemClock):
    """A clock during whose sleeps one thing after another happens."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)

    def sleep(self, seconds: float) -> None:
        assert self.acts, "the study has ended, and the watching has not"
        self.acts.pop(0)()


def watched(folder: StudyFolder, path: Path, clock: SystemClock) -> tuple[int, list[str]]:
    with CliRunner().isolation() as (out, *_):
        code = Watch(path, folder, clock, plain=True).run()
        lines = out.getvalue().decode().splitlines()
    return code, [line[9:] if line[2:3] == ":" else line for line in lines]


def append(folder: StudyFolder, *events: Event) -> None:
    with open(folder.journal, "ab") as stream:
        stream.write(b"".join(map(seal, events)))


def test_that_a_study_that_is_over_is_shown_once(hpc_hpo: Command, folder: StudyFolder) -> None:
    done = hpc_hpo("watch", folder.path)
    assert done.exit_code == 3
    first, last = done.output.splitlines()
    assert first[9:].startswith("trials 2 of 3, 1 failed, 0 paused; best 0.25 (trial 0)")
    assert last == "digits: stopped with work left; `hpc-hpo run` goes on with it"


def test_that_watching_changes_nothing(hpc_hpo: Command, folder: StudyFolder) -> None:
    before = picture_of(folder.path)
    hpc_hpo("watch", folder.path)
    assert picture_of(folder.path) == before


@pytest.mark.parametrize(
    ("last", "code"), [([DONE], 0), ([ev.asked(9, {})], 3)], ids=["done", "left"]
)
def test_that_the_exit_code_tells_how_the_study_stands(
    hpc_hpo: Command, folder: StudyFolder, last: list[Event], code: int
) -> None:
    append(folder, *last)
    assert hpc_hpo("watch", folder.path).exit_code == code


def test_that_a_study_that_has_not_begun_is_waited_for_and_followed_to_its_end(
    study_file: Path, write_study: Callable[[Sequence[Event]], StudyFolder], steer: Steer
) -> None:
    folder = StudyFolder(study_file.parent / "digits")
    clock = Play(
        lambda: None,
        lambda: (write_study(HISTORY[:2]), steer(folder)),
        lambda: append(folder, *HISTORY[2:8]),
        lambda: append(folder, *HISTORY[8:], DONE),
        lambda: folder.holder.unlink(),
    )
    # Who steers is looked at every two seconds of this clock, which stands still otherwise.
    ticks = iter(range(0, 1000, 3))
    clock.now = lambda: ev.START + next(ticks)  # type: ignore[method-assign]
    code, lines = watched(folder, study_file, clock)
    assert code == 0
    told = [line for line in lines if not line.startswith("trials")]
    assert told == [
        "the study has not begun",
        "block 1.b0 running",
        "trial 1 failed: ValueError: no",
        "best 0.25 by trial 0 (2 of 3 done): lr = 0.123457, act = relu",
        "block 1.b0 ended (walltime)",
        "digits: done",
    ]


def test_that_a_study_that_begins_between_two_looks_at_its_steerer_is_not_taken_for_left(
    study_file: Path, write_study: Callable[[Sequence[Event]], StudyFolder], steer: Steer
) -> None:
    folder = StudyFolder(study_file.parent / "digits")
    now = [float(ev.START)]

    def end() -> None:
        append(folder, *HISTORY[2:], DONE)
        folder.holder.unlink()
        now[0] += 60.0

    clock = Play(lambda: (write_study(HISTORY[:2]), steer(folder)), end)
    clock.now = lambda: now[0]  # type: ignore[method-assign]
    code, lines = watched(folder, study_file, clock)
    assert (code, lines[-1]) == (0, "digits: done")


def test_that_a_chain_between_two_jobs_is_waited_for(folder: StudyFolder, study_file: Path) -> None:
    chain = folder.path / "chain.json"
    chain.write_text('{"site": "s", "max_jobs": 9, "jobs": ["77"], "closed": ""}')
    closed = chain.read_text().replace('"closed": ""', '"closed": "the study is done"')
    clock = Play(lambda: None, lambda: chain.write_text(closed))
    ticks = iter(range(0, 1000, 3))
    clock.now = lambda: ev.START + next(ticks)  # type: ignore[method-assign]
    code, lines = watched(folder, study_file, clock)
    assert code == 3
    assert "job 77 is to go on with it" in lines
    assert not clock.acts, "it ended before the chain did"


def test_that_a_study_begun_afresh_in_the_same_folder_is_followed(
    folder: StudyFolder, study_file: Path, steer: Steer
) -> None:
    steer(folder)
    fresh = [ev.run(), *HISTORY[2:4], ev.end(0, 1, "completed", "completed", loss=9.0)]

    def replace() -> None:
        folder.journal.unlink()
        append(folder, *fresh, DONE)

    ticks = iter(range(0, 1000, 3))
    clock = Play(replace, lambda: folder.holder.unlink())
    clock.now = lambda: ev.START + next(ticks)  # type: ignore[method-assign]
    _, lines = watched(folder, study_file, clock)
    assert any("best 0.25" in line for line in lines[:1])
    assert any(line.startswith("trials 1 of 3, 0 failed, 0 paused; best 9") for line in lines[1:])


def test_that_a_damaged_journal_ends_it_with_the_place(
    hpc_hpo: Command, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_hpo.following.PATIENCE_S", -1.0)
    raw = folder.journal.read_bytes()
    folder.journal.write_bytes(b"x" + raw[1:])
    done = hpc_hpo("watch", folder.path)
    assert done.exit_code == 6 and "byte 0" in done.stderr


# -- a real terminal --------------------------------------------------------------


@pytest.fixture
def terminal(steered_by_us: StudyFolder) -> Iterator[Callable[..., Terminal]]:
    """Opens terminals that watch a study which this process steers."""
    opened: list[Terminal] = []

    def open_(columns: int = 80, lines: int = 24, **environment: str) -> Terminal:
        opened.append(Terminal(steered_by_us.path, columns, lines, **environment))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def test_that_the_picture_is_redrawn_in_place_and_follows_the_terminal_s_size(
    terminal: Callable[..., Terminal], steered_by_us: StudyFolder
) -> None:
    screen = terminal(100, 30)
    first = screen.until("╯")
    assert "2 of 3" in first
    assert {len(line) for line in ESCAPE.sub("", first).splitlines() if line[:1] == "│"} == {100}
    append(steered_by_us, ev.asked(2, {"lr": 0.5}), ev.submit(2))
    assert "\x1b[1A" in screen.until("1 running"), "it is drawn over the first"
    screen.resize(60, 20)
    screen.until("\x1b[2J")
    after = ESCAPE.sub("", screen.until("╯")).splitlines()
    assert {len(line) for line in after if line[:1] == "│"} == {60}
    screen.resize(40, 15)
    screen.until("\x1b[2J")
    assert "╭" not in screen.until("errors"), "no frame where there is no room for one"
    append(steered_by_us, ev.end(2, 1, "completed", "completed", loss=0.1), DONE)
    steered_by_us.holder.unlink()
    screen.until("digits: done")
    assert screen.process.wait(timeout=20) == 0


def test_that_ctrl_c_ends_it_without_a_word_and_gives_the_cursor_back(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal()
    screen.until("╯")
    screen.process.send_signal(signal.SIGINT)
    last = screen.until("\x1b[?25h")
    assert screen.process.wait(timeout=20) == 130
    assert "Traceback" not in last and "interrupted" not in last


def test_that_a_dumb_terminal_gets_lines_without_escapes(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal(TERM="dumb")
    assert "\x1b" not in screen.until("trials 2 of 3, 1 failed")


def test_that_no_color_means_no_colour(terminal: Callable[..., Terminal]) -> None:
    text = terminal(NO_COLOR="1").until("╯")
    assert "\x1b[32m" not in text and "\x1b[31m" not in text and "█" in text
