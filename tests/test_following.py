"""A journal that is read while another process writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo import following
from hpc_hpo.errors import JournalCorrupt
from hpc_hpo.following import PATIENCE_S, JournalFollower
from hpc_hpo.fsio import seal
from hpc_hpo.journal import Event, replay
from tests import events as ev

HISTORY: list[Event] = [
    ev.run(),
    ev.asked(0, {"x": 1}),
    ev.submit(0),
    ev.end(0, 1, "completed", "completed", loss=0.5),
]


class Hand:
    """A journal, its writer, and a follower with a clock that is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        self.time = 0.0
        self.follower = JournalFollower(self.path, lambda: self.time)

    def write(self, data: bytes) -> None:
        with open(self.path, "ab") as stream:
            stream.write(data)

    def read(self) -> None:
        while self.follower.read():
            pass


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    return Hand(tmp_path)


@ev.ON_FILES
@given(ev.histories(), st.lists(st.floats(0, 1), max_size=5))
def test_that_what_is_read_in_pieces_is_what_is_replayed(
    tmp_path: Path, history: list[Event], cuts: list[float]
) -> None:
    hand = Hand(tmp_path)
    hand.path.unlink(missing_ok=True)
    data = b"".join(map(seal, history))
    places = sorted(round(cut * len(data)) for cut in cuts)
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        hand.write(data[start:end])
        hand.read()
    # As text, for NaN equals nothing.
    assert repr(hand.follower.state) == repr(replay(history))
    assert hand.follower.share == 1.0


def test_that_a_journal_that_is_not_there_yet_is_waited_for(hand: Hand) -> None:
    before = hand.follower.state
    assert not hand.follower.read()
    hand.write(seal(HISTORY[0]))
    assert hand.follower.read()
    assert hand.follower.state is before and before.runs == 1


def test_that_a_torn_last_record_is_taken_once_it_is_whole(hand: Hand) -> None:
    line = seal(HISTORY[1])
    hand.write(seal(HISTORY[0]) + line[:20])
    hand.read()
    assert not hand.follower.state.trials and hand.follower.share < 1.0
    hand.write(line[20:])
    hand.read()
    assert list(hand.follower.state.trials) == [0]


def test_that_a_journal_longer_than_a_chunk_is_read_in_turns(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CHUNK", 64)
    hand.write(b"".join(map(seal, HISTORY)))
    shares = []
    while hand.follower.read():
        shares.append(hand.follower.share)
    assert len(shares) > 1 and shares == sorted(shares) and shares[-1] == 1.0
    assert hand.follower.state == replay(HISTORY)


@pytest.mark.parametrize("how", ["replaced", "shortened", "removed and written anew"])
def test_that_a_journal_that_was_replaced_is_read_from_its_start(hand: Hand, how: str) -> None:
    hand.write(b"".join(map(seal, HISTORY)))
    hand.read()
    before = hand.follower.state
    fresh = seal(HISTORY[0]) + seal(ev.asked(7, {"x": 2}))
    if how == "replaced":
        other = hand.path.with_name("other")
        other.write_bytes(
            fresh + b"".join(map(seal, [ev.asked(n, {"x": n}) for n in range(8, 20)]))
        )
        other.replace(hand.path)
    elif how == "shortened":
        hand.path.write_bytes(fresh)
    else:
        hand.path.unlink()
        assert not hand.follower.read()
        assert not hand.follower.state.trials
        hand.write(fresh)
    hand.read()
    assert hand.follower.state is not before
    assert min(hand.follower.state.trials) == 7


def test_that_a_damaged_record_gets_time_to_come_over_the_network(hand: Hand) -> None:
    good = seal(HISTORY[1])
    hand.write(seal(HISTORY[0]))
    hand.read()
    offset = hand.path.stat().st_size
    # What a file system shows of an append whose pages have not all arrived.
    hand.write(b"\0" * (len(good) - 1) + b"\n")
    hand.read()
    hand.time = PATIENCE_S / 2
    hand.read()
    with open(hand.path, "r+b") as stream:
        stream.seek(offset)
        stream.write(good)
    hand.read()
    assert list(hand.follower.state.trials) == [0]


def test_that_a_record_that_stays_damaged_is_told_with_its_place(hand: Hand) -> None:
    first = seal(HISTORY[0])
    hand.write(first + b"x" + seal(HISTORY[1]))
    hand.read()
    hand.time = PATIENCE_S + 1
    with pytest.raises(JournalCorrupt) as caught:
        hand.read()
    assert caught.value.offset == len(first)
