"""Crash-safe file operations: sealing, the sealed writer, atomic replacement."""

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import (
    SealedWriter,
    from_json,
    read_sealed,
    seal,
    sha256_of,
    to_json,
    unseal,
    write_atomic,
)

# Any code point, lone surrogates included: file names and log tails hold them.
texts = st.text(st.characters(), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(texts, values, min_size=1, max_size=4)
#: A busy machine is no reason to fail.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def same(left: object, right: object) -> bool:
    """Equality under which NaN equals NaN, and 1, 1.0 and True all differ."""
    return repr(left) == repr(right)


@UNHURRIED
@given(records)
def test_that_any_record_survives_seal_and_unseal(record: dict[str, object]) -> None:
    line = seal(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert same(unseal(line[:-1]), record)


@UNHURRIED
@given(values)
def test_that_any_value_survives_json(value: object) -> None:
    assert same(from_json(to_json(value)), value)


@UNHURRIED
@given(records, st.data())
def test_that_no_single_bit_flip_of_a_line_is_accepted(
    record: dict[str, object], data: st.DataObject
) -> None:
    line = seal(record)[:-1]
    bit = data.draw(st.integers(0, 8 * len(line) - 1))
    damaged = bytearray(line)
    damaged[bit // 8] ^= 1 << bit % 8
    assert all(unseal(part) is None for part in bytes(damaged).split(b"\n"))


def test_that_every_single_bit_flip_of_a_plain_line_is_detected() -> None:
    line = seal({"e": "asked", "trial": 3, "point": {"lr": 1e-3, "act": "tañh"}})[:-1]
    for bit in range(8 * len(line)):
        damaged = bytearray(line)
        damaged[bit // 8] ^= 1 << bit % 8
        assert all(unseal(part) is None for part in bytes(damaged).split(b"\n")), bit


def test_that_an_empty_record_cannot_be_sealed() -> None:
    with pytest.raises(ValueError, match="empty"):
        seal({})


@pytest.mark.parametrize("line", [b"", b"{}", b'{"crc":"00000000",', b"\0" * 40, b"[1]"])
def test_that_what_was_never_sealed_is_not_a_record(line: bytes) -> None:
    assert unseal(line) is None


def test_that_reading_gives_offsets_and_skips_a_line_still_being_written(tmp_path: Path) -> None:
    first, second = seal({"n": 1}), seal({"n": 2})
    file = tmp_path / "f"
    file.write_bytes(first + b"rubbish\n" + second + seal({"n": 3})[:-1])
    assert list(read_sealed(file)) == [
        (0, {"n": 1}),
        (len(first), None),
        (len(first) + 8, {"n": 2}),
    ]
    assert list(read_sealed(file, len(first) + 8)) == [(len(first) + 8, {"n": 2})]


def test_that_a_torn_last_line_is_repaired(tmp_path: Path) -> None:
    file = tmp_path / "f"
    whole, torn = seal({"n": 1}), seal({"n": 2})[:-7]
    file.write_bytes(whole + torn)
    writer = SealedWriter(file)
    assert writer.repaired_bytes == len(torn)
    writer.append(seal({"n": 3}))
    writer.sync()
    writer.close()
    assert [record for _, record in read_sealed(file)] == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize("tail", [65535, 65536, 65537, 200_000])
def test_that_a_torn_line_longer_than_one_read_is_repaired(tmp_path: Path, tail: int) -> None:
    file = tmp_path / "f"
    file.write_bytes(seal({"n": 1}) + b"x" * tail)
    writer = SealedWriter(file)
    writer.close()
    assert writer.repaired_bytes == tail
    assert file.read_bytes() == seal({"n": 1})


def test_that_a_file_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(seal({"n": 1})[:-1])
    SealedWriter(file).close()
    assert file.read_bytes() == b""


class FullDisk:
    """An os.write that takes `room` bytes and then has no more."""

    def __init__(self, room: int, code: int = errno.ENOSPC) -> None:
        self.room, self.code = room, code

    def __call__(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", range(0, 60, 7))
def test_that_a_full_disk_leaves_no_half_line(tmp_path: Path, room: int) -> None:
    file = tmp_path / "f"
    file.write_bytes(seal({"n": 0}))
    disk = FullDisk(room)
    writer = SealedWriter(file, write=disk)
    lines = seal({"n": 1}) + seal({"n": 2}) + seal({"n": 3})
    with pytest.raises(StorageError, match="make room"):
        writer.append(lines)
    assert file.read_bytes() == seal({"n": 0})
    disk.room = 10_000
    writer.append(lines)
    writer.close()
    assert [record for _, record in read_sealed(file)] == [{"n": n} for n in range(4)]


def test_that_short_writes_are_continued(tmp_path: Path) -> None:
    file = tmp_path / "f"
    writer = SealedWriter(file, write=lambda fd, data: os.write(fd, data[:3]))
    writer.append(seal({"text": "long enough to need several writes"}))
    writer.close()
    assert file.read_bytes() == seal({"text": "long enough to need several writes"})


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "make room"), (errno.EDQUOT, "quota"), (errno.EROFS, "--dir")],
)
def test_that_a_failed_write_names_the_file_and_the_remedy(
    tmp_path: Path, code: int, remedy: str
) -> None:
    writer = SealedWriter(tmp_path / "f", write=FullDisk(0, code))
    with pytest.raises(StorageError, match=remedy) as caught:
        writer.append(seal({"n": 1}))
    writer.close()
    assert str(tmp_path / "f") in str(caught.value)


def test_that_opening_where_nothing_can_be_written_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permission bits do not stop root, so the refusal is put in by hand.
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="--dir"):
        SealedWriter(tmp_path / "f")


def test_that_replacing_leaves_the_old_content_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    write_atomic(file, "old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="make room"):
            write_atomic(file, "new")
    assert file.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("durable", [True, False])
def test_that_replacing_is_not_stopped_by_a_leftover(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "f"
    (tmp_path / f".f.{os.getpid()}.tmp").write_text("left by a crash")
    write_atomic(file, "ünï", durable=durable)
    assert file.read_bytes() == "ünï".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert stat.S_ISREG(file.stat().st_mode)


def test_that_a_checksum_is_of_all_chunks(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert sha256_of(file) == sha256_of(file, chunk=2) == known
