"""What `run` and `watch` show: the figures, the picture at any size, the plain lines."""

from __future__ import annotations

import io
from typing import Any

import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Console

from hpc_hpo.cli.progress import MOST_LINES, LivePanel, PlainLog
from hpc_hpo.cli.screen import ASCII_BARS, BARS, Screen, clock_text, fit, sparkline
from hpc_hpo.cli.tally import Scene, Tally, chosen_segments, journal_capacity, sampled
from hpc_hpo.journal import Event, StudyState, replay
from hpc_hpo.pilot.base import Capacity
from tests import events as ev

T = ev.START
STUDY: dict[str, Any] = {"name": "digits", "budget": {"trials": 10}}
SEGMENTED = {**STUDY, "segments": {"list": [{"name": n} for n in ("a", "b", "c", "d")]}}


def tally_at(seconds: float, study: dict[str, Any] = STUDY) -> Tally:
    return Tally(study, now=lambda: T + seconds)


def trial(number: int, loss: float | None, segment: str | None = None, **more: Any) -> list[Event]:
    """A trial that ended at once; without a loss it has failed."""
    own = {} if segment is None else {"segment": segment}
    how = ("failed", "failed") if loss is None else ("completed", "completed")
    if loss is None:
        more.setdefault("error", {"kind": "exception", "message": "no"})
    return [
        {**ev.asked(number, {"lr": 0.5, "act": "relu"}), **own},
        ev.submit(number),
        ev.end(number, 1, *how, loss=loss, **more),
    ]


def block(number: int, started: float, deadline: float | None = None, workers: int = 4) -> Event:
    return ev.block(
        f"1.{number}", "running", T, started=T + started, workers=workers, nodes=2,
        deadline=None if deadline is None else T + deadline, job=f"47{number}",
    )  # fmt: skip


def scene(*history: Event, at: float = 100.0, study: dict[str, Any] = STUDY, **more: Any) -> Scene:
    tally, state = tally_at(at, study), replay([ev.run(), *history])
    tally.update(state)
    return Scene("digits", tally, state, journal_capacity(state, T + at), **more)


def drawn(scene: Scene, width: int = 100, height: int = 40) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    console.print(Screen(scene))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


BUSY = [
    block(0, 0, 3600), block(1, 0), ev.block("1.2", "requested", T, requested=T),
    *trial(0, 8.0), *trial(1, 2.0), *trial(2, None, host="n1"), *trial(3, 4.0), *trial(4, 1.0),
    ev.asked(5, {"lr": 0.1}), ev.submit(5), ev.asked(6, {"lr": 0.2}),
]  # fmt: skip


# -- figures ------------------------------------------------------------------


def test_that_the_time_to_go_follows_from_this_runs_pace_since_its_first_block() -> None:
    before = [*trial(0, 1.0), *trial(1, 1.0)]
    state = replay([ev.run(), *before, ev.run(2, T), *trial(2, 1.0), *trial(3, 1.0)])
    assert tally_at(100).remaining_s(state) == pytest.approx(100 / 2 * 6)
    late = {**block(0, 60), "block": "2.0"}
    state.apply(late)
    assert tally_at(100).remaining_s(state) == pytest.approx(40 / 2 * 6)


def test_that_no_time_to_go_is_told_before_the_first_trial_and_after_the_last() -> None:
    assert tally_at(100).remaining_s(replay([ev.run()])) is None
    done = replay([ev.run(), *(e for n in range(10) for e in trial(n, 1.0))])
    assert tally_at(100).remaining_s(done) is None


def test_that_a_limit_of_wall_time_ends_the_study_earlier() -> None:
    study = {**STUDY, "budget": {"trials": 10, "wall_time": "2m"}}
    state = replay([ev.run(), *trial(0, 1.0)])
    assert tally_at(100, study).remaining_s(state) == pytest.approx(20)


def test_that_only_trials_of_this_run_are_new() -> None:
    tally = tally_at(0)
    state = replay([ev.run(), *trial(0, None), ev.run(2), *trial(1, None)])
    assert [t.id for t in tally.update(state)] == [1]
    for event in trial(2, 3.0):
        state.apply(event)
    assert [t.id for t in tally.update(state)] == [2]
    assert tally.best is state.trials[2]


@pytest.mark.parametrize(("direction", "best"), [("minimize", 1), ("maximize", 0)])
def test_that_the_best_is_that_of_the_study_s_direction(direction: str, best: int) -> None:
    tally = tally_at(0, {**STUDY, "direction": direction})
    state = replay([ev.run(), *trial(0, 9.0), *trial(1, 1.0), *trial(2, 5.0)])
    tally.update(state)
    assert tally.best is state.trials[best]
    assert tally.best is state.best(tally.sign)


def test_that_the_budget_is_that_of_all_segments_with_what_people_have_changed() -> None:
    spec = {"e": "segment", "op": "add", "segment": "e", "spec": {"budget": {"trials": 3}}}
    more = {"e": "segment", "op": "budget", "segment": "a", "trials": 50}
    assert tally_at(0, SEGMENTED).budget(replay([])) == 40
    assert tally_at(0, SEGMENTED).budget(replay([spec, more])) == 50 + 3 * 10 + 3


def test_that_segments_worth_a_look_are_failing_active_and_best_ones() -> None:
    history = [
        *trial(0, None, "a"), *trial(1, 5.0, "b"), *trial(2, 1.0, "c"), *trial(3, 2.0, "d"),
        {**ev.asked(4, {"lr": 1}), "segment": "b"},
    ]  # fmt: skip
    shown = scene(*history, study=SEGMENTED)
    assert chosen_segments(shown.tally, shown.state, 3) == [
        ("a", "failing"), ("b", "active"), ("c", "best")
    ]  # fmt: skip
    assert len(chosen_segments(shown.tally, shown.state, 99)) == 4


def test_that_a_segment_that_was_begun_again_begins_its_history_again() -> None:
    tally = tally_at(0, SEGMENTED)
    state = replay([ev.run(), *trial(0, 1.0, "a")])
    tally.update(state)
    state.apply({"e": "segment", "op": "rerun", "segment": "a", "at": T})
    for event in trial(1, 7.0, "a"):
        state.apply(event)
    tally.update(state)
    assert tally.improvements["a"] == [(1, 7.0)]


def test_that_blocks_past_their_end_and_those_of_earlier_runs_give_no_workers() -> None:
    state = replay([ev.run(), block(0, 0, 50), block(1, 0, 500), block(2, 0)])
    assert journal_capacity(state, T + 100).connected == 8
    assert journal_capacity(state, T + 100).seconds_left == 400
    state.apply(ev.run(2))
    assert journal_capacity(state, T + 100).connected == 0


# -- the sparkline --------------------------------------------------------------


def test_that_the_best_so_far_is_sampled_at_equal_steps() -> None:
    steps = [(1, 8.0), (2, 4.0), (7, 1.0)]
    assert list(sampled(steps, 8, 4)) == [4.0, 4.0, 4.0, 1.0]
    assert list(sampled(steps, 3, 40)) == [8.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.0, 7.0], "▁█"),
        ([7.0, 0.0, 3.0], "█▁▄"),
        ([1.0, 10.0**3.5, 10.0**7], "▁▅█"),
        ([2.0, 2.0], "▁▁"),
        ([-1e308, 1e308], "▁▁"),
    ],
)
def test_that_a_sparkline_spans_its_values(values: list[float], line: str) -> None:
    assert sparkline(values, BARS) == line
    assert len(sparkline(values, ASCII_BARS)) == len(values)


# -- the picture ----------------------------------------------------------------


def test_that_the_picture_tells_all_that_a_look_is_for() -> None:
    text = drawn(scene(*BUSY, ev.end(5, 1, "lost", "paused", reason="died", wasted_s=9.0)))
    for words in (
        "5 of 10", "1 failed", "1 asked", "1 paused", "trial 4", "act = relu", "█",
        "0 of 8 busy", "2 running", "1 waiting", "58 min 20 s left", "no end", "job 470",
        "waiting for 1 min 40 s", "0.11 node-hours", "1 slice lost", "1 min 40 s so far",
        "to go", "ends about", "trial 2: no", "trial 5: its block died",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("width", [16, 24, 40, 59, 60, 80, 140])
@pytest.mark.parametrize("height", [4, 10, 24, 60])
@pytest.mark.parametrize("study", [STUDY, SEGMENTED])
def test_that_the_picture_fits_its_terminal(width: int, height: int, study: dict[str, Any]) -> None:
    segment = "a" if study is SEGMENTED else None
    wide = {"kind": "exception", "message": "größe 大小 " * 40}
    shown = scene(*BUSY[:3], *trial(0, 1.0, segment), *trial(1, None, segment, error=wide),
                  study=study, note="a note " * 30)  # fmt: skip
    lines = drawn(shown, width, height).splitlines()
    assert len(lines) < height
    assert max(map(cell_len, lines)) <= width


def test_that_more_is_shown_where_there_is_more_room() -> None:
    shown = scene(*(block(n, 0, 60 + n) for n in range(9)), *BUSY[3:])
    low, high = (len(fit(shown, 76, height, False)) for height in (12, 50))
    assert low <= 12 < high
    assert "3 more" in drawn(shown) and "8 more" not in drawn(shown)


def test_that_a_terminal_without_unicode_gets_a_picture_in_ascii() -> None:
    shown = scene(*BUSY, *trial(8, None, error={"kind": "e", "message": "größe"}))
    lines = fit(shown, 76, 40, ascii_only=True)
    figures = "\n".join(line.plain for line in lines if "trial 8" not in line.plain)
    assert figures.isascii() and "####" in figures


def test_that_escape_sequences_of_a_payload_do_not_reach_the_terminal() -> None:
    evil = {"kind": "exception", "message": "\x1b[2Jgone\x07\nsecond line"}
    text = drawn(scene(*trial(0, None, error=evil)))
    assert "\\x1b[2Jgone\\x07" in text
    assert "\x1b" not in text and "second line" not in text


def test_that_without_a_steering_process_no_block_is_believed() -> None:
    text = drawn(scene(block(0, 0, 3600), steered=False, note="the study has not begun"))
    assert "0 running" in text and "the study has not begun" in text
    assert "left" not in text


def test_that_a_journal_that_has_gone_quiet_is_told() -> None:
    assert "last event" not in drawn(scene(block(0, 0), at=30))
    assert "last event 3 min 20 s ago" in drawn(scene(block(0, 0), at=200))


def test_that_the_end_is_told_with_its_day_where_that_is_another() -> None:
    now = 1_700_000_000.0
    assert len(clock_text(now, now)) == len("12:00")
    assert clock_text(now + 86400, now).split()[0].isalpha()
    assert len(clock_text(now + 20 * 86400, now).split()) == 3


# -- plain lines ------------------------------------------------------------------


class Lines:
    """A plain log whose clock is set by hand, and the lines that it prints."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.seconds = 0.0
        self.log = PlainLog(Tally(STUDY, now=lambda: T + self.seconds), at_once=at_once)
        self.state = replay([ev.run()])

    def after(self, *history: Event, seconds: float = 0.0, note: str = "") -> list[str]:
        self.seconds += seconds
        for event in history:
            self.state.apply(event)
        with CliRunner().isolation() as (out, *_):
            self.log.update(self.state, Capacity(4, None, 0), note)
            return [line[9:] for line in out.getvalue().decode().splitlines()]


def test_that_lines_are_printed_for_what_changes_and_for_nothing_else() -> None:
    lines = Lines()
    assert lines.after(block(0, 0)) == ["block 1.0 running"]
    assert lines.after(*trial(0, 2.0)) == ["best 2 by trial 0 (1 of 10 done): lr = 0.5, act = relu"]
    assert lines.after(*trial(1, None), *trial(2, 3.0)) == ["trial 1 failed: no"]
    (summary,) = lines.after(seconds=40)
    assert summary.startswith(
        "trials 3 of 10, 1 failed, 0 paused; best 2 (trial 0); workers 0 of 4"
    )
    assert lines.after(seconds=40) == [] == lines.after(seconds=4000)
    assert len(lines.after(ev.asked(3, {}), ev.submit(3), seconds=40)) == 1


def test_that_a_watcher_s_log_begins_with_how_the_study_stands() -> None:
    (summary,) = Lines(at_once=True).after()
    assert summary.startswith("trials 0 of 10")


def test_that_a_note_is_told_once() -> None:
    lines = Lines()
    assert lines.after(note="job 7 is to go on with it") == ["job 7 is to go on with it"]
    assert lines.after(note="job 7 is to go on with it") == []


def test_that_an_empty_state_can_be_drawn() -> None:
    empty = Scene("digits", tally_at(0), StudyState(), Capacity(0, None, 0), steered=False)
    assert "0 of 10" in drawn(empty)


def test_that_many_failures_are_told_with_one_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [T]
    state = replay([ev.run()])
    tally = Tally({"name": "s", "budget": {"trials": 99}}, lambda: clock[0])
    with CliRunner().isolation() as (out, *_):
        panel = LivePanel(tally, "s")
        panel.update(state, Capacity(2, None, 0))
        drawn: list[Scene] = []
        real = LivePanel._draw
        monkeypatch.setattr(
            LivePanel, "_draw", lambda own, scene: (drawn.append(scene), real(own, scene))
        )
        for number in range(30):
            state.apply(ev.asked(number, {"x": 1}))
            state.apply(ev.submit(number))
            error = {"kind": "exit", "message": f"no {number}"}
            state.apply(ev.end(number, 1, "failed", "failed", error=error))
            panel.update(state, Capacity(2, None, 0))
        assert not drawn, "it is not due yet"
        clock[0] += 1e6
        panel.update(state, Capacity(2, None, 0))
        assert len(drawn) == 1
        panel.close()
        told = [line for line in out.getvalue().decode().splitlines() if " failed" in line]
    named = [line for line in told if line.startswith("trial ")]
    assert named == [f"trial {n} failed: no {n}" for n in range(MOST_LINES)]
    assert "25 more trials failed" in told
