"""What staging does with local files, and the order and the record of many inputs."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.errors import InputError
from hpc_hpo.prestage import running
from hpc_hpo.prestage.carousel import Carousel
from hpc_hpo.prestage.copying import SMALL, copy_hashed
from hpc_hpo.prestage.manifest import load_manifest
from hpc_hpo.prestage.verify import verify
from tests.prestage.conftest import Place
from tests.prestage.server import Server


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_that_files_folders_and_patterns_are_staged(place: Place, mode: str) -> None:
    (place.path / "d" / "deep").mkdir(parents=True)
    for name in ("d/a.csv", "d/deep/b.csv", "d/c.txt"):
        (place.path / name).write_text(name)
    manifest = place.stage(
        {"name": "all", "source": "d", "mode": mode},
        {"name": "some", "source": "d/**/*.csv", "mode": mode},
        {"name": "one", "source": "d/c.txt", "mode": mode},
    )
    assert (place.staged("all") / "deep" / "b.csv").read_text() == "d/deep/b.csv"
    assert (place.staged("some") / "deep" / "b.csv").read_text() == "d/deep/b.csv"
    assert place.staged("one").is_symlink() is (mode == "link")
    assert len(manifest.files) == 6 and list(verify(manifest, place.folder, rehash=True)) == []
    inode = os.lstat(place.staged("one")).st_ino
    place.stage(
        {"name": "one", "source": "d/c.txt", "mode": mode}, {"name": "all", "source": "d/deep"}
    )
    assert os.lstat(place.staged("one")).st_ino == inode, "what has not changed is left"
    assert sorted(p.name for p in place.folder.inputs.iterdir()) == ["all", "one"]


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, 3 * SMALL + 17])
def test_that_a_copy_has_the_content_time_and_checksum(place: Place, size: int) -> None:
    source, target = place.path / "a", place.path / "b"
    source.write_bytes(os.urandom(size))
    os.utime(source, ns=(1_000, 123_456_789))
    sha256, stat = copy_hashed(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mtime_ns == stat.st_mtime_ns == 123_456_789
    place.stage({"name": "a", "source": "a", "sha256": sha256})
    assert os.listdir(place.path).count("b") == 1 and not list(place.path.glob(".*tmp"))


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_that_a_local_file_with_another_checksum_is_refused_by_name(
    place: Place, mode: str
) -> None:
    (place.path / "a").write_text("x")
    with pytest.raises(InputError, match=r"input a: .*/a: its sha256 is 2d711642"):
        place.stage({"name": "a", "source": "a", "mode": mode, "sha256": "0" * 64})
    assert place.names() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text("longer than it was"), "were staged"),
        (lambda path: path.write_text("X"), "has changed since it was staged"),
    ],
)
def test_that_a_missing_or_changed_file_is_named(place: Place, change: object, words: str) -> None:
    for name in ("a", "b"):
        (place.path / name).write_text("x")
    manifest = place.stage(*({"name": n, "source": n, "mode": "copy"} for n in "ab"))
    change(place.staged("b"))  # type: ignore[operator]
    (problem,) = verify(manifest, place.folder, rehash=True)
    assert problem.startswith("input b: inputs/b/b") and words in problem


def test_that_only_a_second_reading_finds_a_change_that_keeps_size_and_time(place: Place) -> None:
    (place.path / "a").write_text("x")
    manifest = place.stage({"name": "a", "source": "a", "mode": "copy"})
    stat = place.staged("a").stat()
    place.staged("a").write_text("y")
    os.utime(place.staged("a"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert list(verify(manifest, place.folder, rehash=False)) == []
    assert len(list(verify(manifest, place.folder, rehash=True))) == 1


def segment(number: int, source: str, name: str = "data") -> dict[str, str]:
    return {"name": name, "segment": f"s{number}", "source": source}


def test_that_a_segment_whose_input_fails_stops_no_other(place: Place, server: Server) -> None:
    server.add("/good", b"g")
    server.add("/bad", b"b", fails=[404] * 9)
    (place.path / "here").write_text("h")
    manifest = place.stage(
        {"name": "common", "source": "here"},
        segment(1, f"{server.url}/bad"),
        segment(2, f"{server.url}/good"),
        segment(3, "nowhere"),
        segment(4, "here"),
    )
    assert {failure.segment for failure in manifest.failed} == {"s1", "s3"}
    assert "404" in (manifest.problem_of("s1") or "")
    assert set(manifest.segments) == {"s2", "s4"}
    assert load_manifest(place.folder) == manifest


def test_that_shared_inputs_come_first_then_whole_segments_the_smallest_first(
    place: Place,
) -> None:
    for name, size in (("big", 900), ("mid", 500), ("low", 10)):
        (place.path / name).write_bytes(bytes(size))
    place.stage(
        segment(1, "big"), segment(2, "mid"), segment(3, "low", "x"), segment(3, "low", "y"),
        {"name": "common", "source": "big"}, workers=1,
    )  # fmt: skip
    assert place.told.order == ["None/common", "s3/x", "s3/y", "s2/data", "s1/data"]


def test_that_readers_see_segments_while_others_are_still_fetched(
    place: Place, server: Server
) -> None:
    seen: list[tuple[bool, bool]] = []
    released = threading.Event()
    server.add("/slow", b"slow", on_get=lambda served: released.wait(30))
    (place.path / "here").write_text("h")

    def look() -> None:
        for _ in range(600):
            manifest = load_manifest(place.folder)
            if manifest is not None and "s1" in manifest.segments:
                seen.append(("s2" in manifest.segments, running(place.folder)))
                break
            released.wait(0.05)
        released.set()

    reader = threading.Thread(target=look)
    reader.start()
    manifest = place.stage(segment(1, "here"), segment(2, f"{server.url}/slow"))
    reader.join()
    assert seen == [(False, True)]
    assert set(manifest.segments) == {"s1", "s2"} and not running(place.folder)


def test_that_what_was_ready_stays_ready_while_prestage_runs_again(
    place: Place, server: Server
) -> None:
    inputs = [segment(1, "here"), segment(2, f"{server.url}/slow")]
    (place.path / "here").write_text("h")
    seen = []

    def look(served: object) -> None:
        manifest = load_manifest(place.folder)
        seen.append(None if manifest is None else set(manifest.segments))

    slow = server.add("/slow", b"slow")
    place.stage(*inputs)
    slow.data, slow.on_get = b"other", look
    place.stage(*inputs)
    assert seen == [{"s1", "s2"}]


def test_that_without_the_network_a_remote_input_is_refused_with_the_remedy(
    place: Place, server: Server
) -> None:
    server.add("/data", b"x")
    data = {"name": "data", "source": f"{server.url}/data"}
    with pytest.raises(InputError, match=r"inputs\[0\]\.source: has not been staged; run .*prest"):
        place.stage(data, network=False)
    assert server.requests == []
    place.stage(data)
    server.requests.clear()
    assert place.stage(data, network=False).holds("data", None)
    assert server.requests == []


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 8))
def test_that_the_carousel_gives_out_every_unit_once_and_looks_ahead_no_further_than_its_window(
    sizes: list[int], window: int
) -> None:
    carousel = Carousel(range(len(sizes)), window)
    ahead: set[int] = set()
    staged: list[int] = []
    while True:
        unit = carousel.next_to_look_at()
        if unit is not None:
            ahead.add(unit)
            assert len(ahead) <= window
            carousel.looked_at(unit, sizes[unit])
            continue
        unit = carousel.next_to_stage()
        if unit is None:
            break
        assert unit == 0 or sizes[unit] == min(sizes[u] for u in ahead)
        ahead.remove(unit)
        staged.append(unit)
    assert sorted(staged) == list(range(len(sizes))) and staged[:1] in ([0], [])
