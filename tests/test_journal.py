"""The journal: what a crash, a full disk or a flipped bit may do to it, and what replay gives."""

import copy
import errno
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.errors import JournalCorrupt, StorageError
from hpc_hpo.fsio import SealedWriter, seal
from hpc_hpo.journal import Event, Journal, StudyState, read_events, replay, salvage
from tests import events as ev

STUDY = [
    ev.run(),
    ev.block("b0", "running", ev.START, started=ev.START, deadline=ev.START + 60, workers=2),
    ev.asked(0, {"lr": 0.1, "act": "tanh"}),
    ev.submit(0),
    ev.asked(1, {"lr": 0.2, "act": "größe \ud800"}),
    ev.submit(1),
    ev.end(0, 1, "paused", "paused", reason="walltime", checkpoint=ev.checkpoint(1, 3)),
    ev.end(1, 1, "completed", "completed", loss=0.25, reports=[[1, {"loss": float("nan")}]]),
    ev.submit(0, 2),
]
LINES = [seal(event) for event in STUDY]
#: Of a trial with three parameters, one slice, no reports: a fifth above what it took once (985).
BYTES_A_TRIAL = 1180


def write(folder: Path, raw: bytes) -> Path:
    path = folder / "journal.jsonl"
    path.write_bytes(raw)
    return path


def replayed(path: Path) -> str:
    """A replay's state as text, because NaN is no equal of itself."""
    return repr(replay(read_events(path)))


def test_that_a_cut_at_every_byte_of_the_last_three_records_is_repaired(tmp_path: Path) -> None:
    raw = b"".join(LINES)
    first_cut = sum(map(len, LINES[:-3]))
    ends = [sum(map(len, LINES[:n])) for n in range(len(LINES) + 1)]
    for cut in range(first_cut, len(raw) + 1):
        whole = sum(1 for e in ends if 0 < e <= cut)
        path = write(tmp_path, raw[:cut])
        assert replayed(path) == repr(replay(STUDY[:whole])), f"before opening, cut at {cut}"
        journal = Journal(path)
        assert journal.repaired_bytes == cut - ends[whole]
        assert replayed(path) == repr(replay(STUDY[:whole])), f"after opening, cut at {cut}"
        later = ev.asked(7, {"lr": 0.3})
        journal.append(later)
        journal.flush()
        assert replayed(path) == repr(replay([*STUDY[:whole], later])), f"appended, cut at {cut}"
        journal.close()


def test_that_a_flipped_bit_is_reported_with_its_offset_and_nothing_is_changed(
    tmp_path: Path,
) -> None:
    for index in (0, 3, len(LINES) - 1):
        offset = sum(map(len, LINES[:index]))
        raw = bytearray(b"".join(LINES))
        raw[offset + len(LINES[index]) // 2] ^= 4
        path = write(tmp_path, bytes(raw))
        with pytest.raises(JournalCorrupt, match=f"byte {offset}.*--salvage") as caught:
            list(read_events(path))
        assert caught.value.offset == offset
        assert path.read_bytes() == raw
        assert [entry.name for entry in tmp_path.iterdir()] == ["journal.jsonl"]


def test_that_salvage_sets_the_bad_line_aside_and_keeps_the_others(tmp_path: Path) -> None:
    bad = LINES[4][:30] + b"?" + LINES[4][31:]
    path = write(tmp_path, b"".join([*LINES[:4], bad, *LINES[5:]]))
    assert salvage(path) == 1
    assert path.read_bytes() == b"".join(LINES[:4] + LINES[5:])
    (aside,) = tmp_path.glob("journal.jsonl.bad-*")
    assert aside.read_bytes() == bad
    # Trial 1's `asked` was the bad record: what is said of it later is counted, not applied.
    state = replay(read_events(path))
    assert sorted(state.trials) == [0]
    assert state.orphans == 2


def test_that_no_second_salvage_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path, b"".join([LINES[0], b"zzz\n", *LINES[1:], b"half a li"]))
    assert salvage(path) == 1
    kept = path.read_bytes()
    assert salvage(path) == 0
    assert path.read_bytes() == kept
    assert len(list(tmp_path.glob("*.bad-*"))) == 1
    assert len(list(read_events(path))) == len(STUDY)


@pytest.mark.parametrize("raw", [b"", b"half a line", LINES[0], LINES[0] + b"half"])
def test_that_salvage_of_a_sound_journal_changes_nothing(tmp_path: Path, raw: bytes) -> None:
    path = write(tmp_path, raw)
    assert salvage(path) == 0
    assert path.read_bytes() == raw
    assert len(list(tmp_path.iterdir())) == 1


def test_that_salvage_keeps_a_record_whose_neighbour_lost_its_newline(tmp_path: Path) -> None:
    glued = LINES[1][:-1] + LINES[2]
    path = write(tmp_path, LINES[0] + glued + LINES[3])
    assert salvage(path) == 1
    assert path.read_bytes() == LINES[0] + LINES[3]


def test_that_a_missing_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "journal.jsonl")) == []
    assert salvage(tmp_path / "journal.jsonl") == 0


@ev.ON_FILES
@given(ev.histories(), st.data())
def test_that_any_bit_flip_of_a_journal_is_noticed_and_salvaged(
    tmp_path: Path, history: Sequence[Event], data: st.DataObject
) -> None:
    lines = [seal(event) for event in history]
    raw = bytearray(b"".join(lines))
    # The last newline apart: a line without it is one that was never finished.
    bit = data.draw(st.integers(0, 8 * (len(raw) - 1) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    path = write(tmp_path, bytes(raw))
    with pytest.raises(JournalCorrupt):
        list(read_events(path))
    assert salvage(path) >= 1
    left = list(read_events(path))
    assert len(lines) - 2 <= len(left) < len(lines)
    replay(left)


class Disk:
    """An os.write that takes `room` bytes and then has no more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


def test_that_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    disk = Disk(room=len(LINES[0]) + 25)
    journal = Journal(path, writer=SealedWriter(path, write=disk))
    reserve = tmp_path / ".reserve"
    assert reserve.stat().st_size == 1 << 20
    journal.append(STUDY[0])
    journal.flush()
    journal.append(STUDY[1])
    journal.append(STUDY[2])
    with pytest.raises(StorageError, match="make room"):
        journal.flush()
    assert path.read_bytes() == LINES[0], "the half-written line is taken back"
    assert not reserve.exists(), "the reserve is given up"
    disk.room = 1 << 20
    journal.flush()
    journal.close()
    assert list(read_events(path)) == STUDY[:3]


def test_that_a_flush_writes_each_event_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(STUDY[0])
    assert (tmp_path / "journal.jsonl").read_bytes() == b""
    journal.flush()
    journal.flush()
    journal.close()
    assert (tmp_path / "journal.jsonl").read_bytes() == LINES[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal.jsonl"]


def test_that_many_events_share_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    journal = Journal(tmp_path / "journal.jsonl", sync_every=3600)
    for event in STUDY:
        journal.append(event)
        journal.flush()
        journal.sync()
    assert len(synced) == 1
    journal.sync(force=True)
    journal.sync(force=True)
    assert len(synced) == 2, "nothing new, nothing to sync"
    journal.close()


def test_that_a_folder_that_cannot_be_written_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"journal\.jsonl.*--dir"):
        Journal(tmp_path / "journal.jsonl")


@ev.ON_FILES
@given(ev.histories(), st.data())
def test_that_live_and_reread_states_agree(
    tmp_path: Path, history: Sequence[Event], data: st.DataObject
) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    live = StudyState()
    journal = Journal(path)
    restart_at = data.draw(st.integers(0, len(history)))
    for number, event in enumerate(history):
        if number == restart_at:
            journal.close()
            live = replay(read_events(path))
            journal = Journal(path)
        live.apply(copy.deepcopy(event))
        journal.append(event)
        journal.flush()
    journal.close()
    assert replayed(path) == repr(live)
    check_books(live)


def check_books(state: StudyState) -> None:
    """Sums that hold of every state, whatever happened."""
    by_hand: dict[str, int] = {}
    for trial in state.trials.values():
        by_hand[trial.state.value] = by_hand.get(trial.state.value, 0) + 1
        assert (trial.loss is not None) == (trial.state.value == "completed")
        assert trial.failures <= sum(s.end == "failed" for s in trial.slices)
    assert {k: n for k, n in state.trial_states.items() if n} == by_hand
    ends = [s.end for t in state.trials.values() for s in t.slices if s.end is not None]
    assert sum(state.slice_ends.values()) == len(ends)


def test_that_the_best_is_by_direction_and_the_earliest_of_equals() -> None:
    history = [ev.run()]
    for trial, loss in enumerate([0.5, 0.0, 0.9, 0.0, 0.9]):
        history += [
            ev.asked(trial, {"x": trial}),
            ev.submit(trial),
            ev.end(trial, 1, "completed", "completed", loss=loss),
        ]
    history += [ev.asked(5, {"x": 5}), ev.submit(5), ev.end(5, 1, "failed", "failed")]
    state = replay(history)
    least, most = state.best(), state.best(-1)
    assert least is not None and (least.id, least.loss) == (1, 0.0)
    assert most is not None and (most.id, most.loss) == (2, 0.9)
    assert replay([ev.run()]).best() is None


def test_that_losses_count_from_the_last_checkpoint_and_failures_do_not_mix_in() -> None:
    saved = ev.checkpoint(1, 1)
    history = [
        ev.run(),
        ev.asked(0, {"x": 1}),
        ev.submit(0, 1),
        ev.end(0, 1, "lost", "paused", futile=True),
        ev.submit(0, 2),
        ev.end(0, 2, "lost", "paused", checkpoint=saved, wasted_s=4.0),
        ev.submit(0, 3),
        ev.end(0, 3, "lost", "paused", checkpoint=saved, futile=True),
        ev.submit(0, 4),
        ev.end(0, 4, "failed", "paused", error={"kind": "exit", "message": "1"}),
        ev.submit(0, 5),
        ev.end(0, 5, "failed", "paused", error={"kind": "output", "transient": True}),
    ]
    state = replay(history)
    trial = state.trials[0]
    assert (trial.losses, trial.failures) == (1, 1)
    assert trial.spent_s == pytest.approx(46.0)
    assert (state.busy_s, state.wasted_s) == (pytest.approx(50.0), pytest.approx(4.0))


def test_that_a_declined_slice_leaves_its_trial_as_new() -> None:
    nothing = {"started": None, "ended": None}
    declined = ev.end(0, 1, "declined", "asked") | nothing
    state = replay([ev.run(), ev.asked(0, {"x": 1}), ev.submit(0, 1), declined])
    trial = state.trials[0]
    assert (trial.state.value, trial.failures, trial.losses, trial.spent_s) == ("asked", 0, 0, 0.0)
    assert state.slice_ends == {"declined": 1}


def test_that_time_counts_only_while_somebody_steers() -> None:
    state = replay(
        [
            ev.run(1, at=100.0),
            ev.asked(0, {"x": 1}, at=130.0),
            {"e": "stop", "run": 1, "at": 150.0, "reason": "stop", "cpu": 0.5},
            ev.run(2, at=9000.0),
            {"e": "tick", "run": 2, "at": 9010.0, "cpu": 0.25},
        ]
    )
    assert state.elapsed_s == 60.0
    assert state.steering_cpu_s == 0.75
    assert (state.runs, state.stop_reason) == (2, None)


def test_that_the_search_log_holds_what_the_optimiser_was_asked_and_told_in_order() -> None:
    state = replay(
        [
            ev.run(),
            ev.asked(0, {"x": 0}),
            ev.asked(1, {"x": 1}),
            ev.submit(1),
            ev.submit(0),
            ev.end(1, 1, "paused", "paused"),
            ev.end(0, 1, "failed", "failed"),
            ev.submit(1, 2),
            ev.end(1, 2, "completed", "completed", loss=1.0),
        ]
    )
    assert list(state.search_log) == [("asked", 0), ("asked", 1), ("told", 0), ("told", 1)]


def test_that_an_outcome_of_another_slice_than_the_open_one_is_not_applied() -> None:
    history = [ev.run(), ev.asked(0, {"x": 1}), ev.submit(0, 1)]
    late = ev.end(0, 2, "completed", "completed", loss=0.0)
    state = replay([*history, late])
    assert state.trials[0].state.value == "running"
    assert state.orphans == 1
    assert state.best() is None


def test_that_a_block_counts_from_its_start_to_its_end() -> None:
    state = replay(
        [
            ev.run(),
            ev.block("b0", "requested", 100.0, requested=100.0),
            ev.block("b1", "requested", 100.0, requested=100.0),
            ev.block("b0", "running", 110.0, started=110.0, deadline=170.0, workers=3),
            ev.block("b0", "ended", 150.0, ended=150.0, reason="walltime"),
            ev.block("b1", "running", 140.0, started=140.0, workers=2),
        ]
    )
    assert state.allocated_s(now=160.0) == 3 * 40 + 2 * 20
    assert state.blocks["b0"].deadline == 170.0


def history_of(trials: int) -> list[bytes]:
    """Sealed lines of trials of one slice each, with the values that the loop and workers write."""
    lines = [seal(ev.run())]
    for number in range(trials):
        point = {"learning_rate": number / 7, "dropout": number / 3, "activation": "leaky relu"}
        lines += [seal(ev.asked(number, point)), seal(ev.submit(number))]
        facts = {
            "host": f"node-{number % 50}", "block": "block-1.0", "worker": f"node-{number % 50}-0",
            "log": [f"logs/block-1.0-{number % 50}.log", number, number + 100],
            "pace": {"step_s": 30.0 + number}, "restored": None,
        }  # fmt: skip
        lines.append(seal(ev.end(number, 1, "completed", "completed", loss=number / 9, **facts)))
    return lines


def test_that_the_state_of_a_trial_takes_no_more_memory_than_it_must(tmp_path: Path) -> None:
    count = 20_000
    path = write(tmp_path, b"".join(history_of(count)))
    tracemalloc.start()
    try:
        state = replay(read_events(path))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(state.trials) == count
    assert used / count < BYTES_A_TRIAL


def test_that_equal_texts_of_many_trials_are_one_object(tmp_path: Path) -> None:
    reports = [[1, {"accuracy": 0.5}]]
    lines = [*history_of(101), seal(ev.asked(101, {"learning_rate": 0.5})), seal(ev.submit(101))]
    lines.append(seal(ev.end(101, 1, "completed", "completed", loss=1.0, reports=reports)))
    lines += [seal(ev.asked(102, {"learning_rate": 0.5})), seal(ev.submit(102))]
    lines.append(seal(ev.end(102, 1, "completed", "completed", loss=1.0, reports=reports)))
    trials = replay(read_events(write(tmp_path, b"".join(lines)))).trials
    first, same_node = trials[0], trials[50]
    for one, other in zip(first.point, same_node.point, strict=True):
        assert one is other, "a parameter's name"
    assert first.point["activation"] is same_node.point["activation"]
    a, b = first.slices[0], same_node.slices[0]
    assert a.log is not None and b.log is not None
    assert (a.host is b.host, a.block is b.block, a.worker is b.worker) == (True, True, True)
    assert a.log[0] is b.log[0]
    assert first.reports is same_node.reports, "what is empty"
    [metric], [again] = (list(trials[n].reports[1]) for n in (101, 102))
    assert metric is again
