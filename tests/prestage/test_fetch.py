"""Downloads from a server that drops, lies and changes."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from hpc_hpo.errors import InputError, StorageError
from hpc_hpo.prestage.fetch import FetchError
from hpc_hpo.prestage.manifest import load_manifest
from hpc_hpo.prestage.store import Store, without_password
from tests.prestage.conftest import Place
from tests.prestage.server import Server

DATA = os.urandom(300_000)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_that_a_url_is_downloaded_checksummed_and_linked_from_the_store(
    place: Place, server: Server
) -> None:
    server.add("/d/data.bin", DATA)
    source = f"{server.url}/d/data.bin?download=1"
    manifest = place.stage({"name": "data", "source": source, "sha256": sha256(DATA)})
    assert place.staged("data").read_bytes() == DATA
    assert place.staged("data").name == "data.bin"
    (file,) = manifest.files
    assert (file.sha256, file.size, file.source) == (sha256(DATA), len(DATA), source)
    kept = place.store.object(sha256(DATA))
    assert kept.samefile(place.staged("data")) and not os.stat(kept).st_mode & 0o222
    assert place.told.bytes == place.told.expected == len(DATA)


def test_that_a_dropped_connection_is_resumed_by_range_and_completed(
    place: Place, server: Server
) -> None:
    server.add("/data", DATA, drops=[100_000, 50_000])
    place.stage({"name": "data", "source": f"{server.url}/data"})
    assert place.staged("data").read_bytes() == DATA
    whole, first, second = server.gets("/data")
    assert whole is None and first == "bytes=100000-" and second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) >= 100_000
    assert len(place.waits) == 2 and place.told.bytes == len(DATA)


def test_that_a_broken_download_leaves_nothing_under_its_name_and_goes_on_later(
    place: Place, server: Server
) -> None:
    served = server.add("/data", DATA, drops=[100_000, 0, 0, 0, 0, 0])
    with pytest.raises(FetchError, match=r"/data: .*given up after 4 tries"):
        place.stage({"name": "data", "source": f"{server.url}/data"})
    assert place.names() == []
    manifest = load_manifest(place.folder)
    assert manifest is not None and not manifest.holds("data", None)
    assert "given up" in manifest.failed[0].problem
    served.drops.clear()
    server.requests.clear()
    place.stage({"name": "data", "source": f"{server.url}/data"})
    assert server.gets("/data") == ["bytes=100000-"], "an hour later, by another process"
    assert place.staged("data").read_bytes() == DATA
    assert place.told.bytes == len(DATA)


def test_that_waits_between_tries_double(place: Place, server: Server) -> None:
    server.add("/data", DATA, fails=[503] * 4)
    place.stage({"name": "data", "source": f"{server.url}/data"})
    assert place.staged("data").read_bytes() == DATA
    first, second = place.waits[:2]
    assert 1.0 <= first <= 1.25 and 2.0 <= second <= 2.5


def test_that_a_wrong_checksum_is_refused_by_name(place: Place, server: Server) -> None:
    server.add("/data.bin", DATA)
    wanted = sha256(b"other")
    with pytest.raises(InputError, match=rf"input data: .*/data\.bin.*{sha256(DATA)}.*{wanted}"):
        place.stage({"name": "data", "source": f"{server.url}/data.bin", "sha256": wanted})
    assert place.names() == []
    assert len(server.gets("/data.bin")) == 1, "what is wrong is not fetched again and again"


def test_that_a_file_that_changes_during_its_download_is_never_mixed(
    place: Place, server: Server
) -> None:
    other = os.urandom(250_000)
    served = server.add("/data", DATA, drops=[100_000])

    def change(served: object) -> None:
        if len(server.gets("/data")) == 2:
            server.files["/data"].data = other

    served.on_get = change
    manifest = place.stage({"name": "data", "source": f"{server.url}/data"})
    assert place.staged("data").read_bytes() == other
    assert manifest.files[0].sha256 == sha256(other)


def test_that_a_file_that_never_stops_changing_is_refused_by_name(
    place: Place, server: Server
) -> None:
    served = server.add("/data", DATA)

    def change(served: object) -> None:
        number = len(server.gets("/data"))
        server.files["/data"].data = bytes([number]) * 200_000
        server.files["/data"].drops = [1000]

    served.on_get = change
    with pytest.raises(FetchError, match="/data: the source changes while it is read"):
        place.stage({"name": "data", "source": f"{server.url}/data"})
    assert place.names() == []


def test_that_a_changed_source_is_noticed_and_taken_before_the_first_trial(
    place: Place, server: Server
) -> None:
    data = {"name": "data", "source": f"{server.url}/data"}
    served = server.add("/data", DATA)
    place.stage(data)
    served.data = DATA[::-1]
    place.stage(data)
    assert place.told.changes == [f"data: {server.url}/data"]
    assert place.staged("data").read_bytes() == DATA[::-1]


def test_that_a_changed_source_is_refused_by_name_once_trials_have_used_it(
    place: Place, server: Server
) -> None:
    data = {"name": "data", "source": f"{server.url}/data"}
    served = server.add("/data", DATA)
    place.stage(data)
    place.begin()
    served.data = DATA[::-1]
    with pytest.raises(InputError, match=r"input data: .*/data has changed since it was staged"):
        place.stage(data)
    assert place.staged("data").read_bytes() == DATA, "the study keeps what it has"
    place.stage(data, update=True)
    assert place.staged("data").read_bytes() == DATA[::-1]


def test_that_a_server_without_ranges_is_read_from_the_beginning(
    place: Place, server: Server
) -> None:
    server.add("/data", DATA, drops=[100_000], ranges=False)
    place.stage({"name": "data", "source": f"{server.url}/data"})
    assert place.staged("data").read_bytes() == DATA
    assert place.told.bytes == len(DATA)


def test_that_without_a_validator_nothing_is_gone_on_with(place: Place, server: Server) -> None:
    server.add("/data", DATA, drops=[100_000], etag=False)
    place.stage({"name": "data", "source": f"{server.url}/data"})
    assert server.gets("/data") == [None, None]
    assert place.staged("data").read_bytes() == DATA


def test_that_a_time_serves_as_validator(place: Place, server: Server) -> None:
    server.add("/data", DATA, drops=[100_000], etag=False, modified=1e9)
    place.stage({"name": "data", "source": f"{server.url}/data"})
    assert server.gets("/data") == [None, "bytes=100000-"]
    assert place.staged("data").read_bytes() == DATA


def test_that_what_is_unchanged_is_not_downloaded_again_by_any_study(
    place: Place, server: Server, tmp_path: Path
) -> None:
    server.add("/data", DATA)
    data = {"name": "data", "source": f"{server.url}/data"}
    place.stage(data)
    server.requests.clear()
    place.stage(data)
    other = Place(tmp_path / "other")
    other.path.mkdir()
    other.store = place.store
    other.stage(data)
    assert server.gets("/data") == []
    assert other.staged("data").samefile(place.staged("data"))


def test_that_a_content_named_by_its_checksum_needs_no_network_once_it_is_stored(
    place: Place, server: Server
) -> None:
    server.add("/data", DATA)
    data = {"name": "data", "source": f"{server.url}/data", "sha256": sha256(DATA)}
    place.stage(data)
    server.requests.clear()
    place.stage(data)
    assert server.requests == []


@pytest.mark.parametrize("status", [404, 403, 410])
def test_that_what_is_not_there_is_said_at_once(place: Place, server: Server, status: int) -> None:
    server.add("/data", DATA, fails=[status] * 9)
    with pytest.raises(InputError, match=rf"inputs\[0\]\.source: .*{status}.*/data"):
        place.stage({"name": "data", "source": f"{server.url}/data"})
    assert place.waits == []


def test_that_a_server_that_is_away_is_tried_again_and_named(place: Place, server: Server) -> None:
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:1/data: .*after 4 tries"):
        place.stage({"name": "data", "source": "http://127.0.0.1:1/data"})
    assert len(place.waits) == 3


def test_that_files_are_downloaded_several_at_a_time(place: Place, server: Server) -> None:
    meeting = threading.Barrier(3, timeout=20)
    inputs = []
    for number in range(3):
        server.add(f"/{number}", DATA, on_get=lambda served: meeting.wait())
        inputs.append({"name": f"d{number}", "source": f"{server.url}/{number}"})
    place.stage(*inputs)  # each answer waits for the other two requests
    assert all(place.staged(f"d{n}").read_bytes() == DATA for n in range(3))


def test_that_a_pattern_and_a_folder_of_any_protocol_are_staged(place: Place) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for name in ("/set/a.csv", "/set/deep/b.csv", "/set/c.txt"):
        system.pipe_file(name, name.encode())
    try:
        place.stage(
            {"name": "all", "source": "memory://set/"},
            {"name": "some", "source": "memory://set/*.csv", "mode": "copy"},
            {"name": "one", "source": "memory://set/c.txt"},
        )
    finally:
        system.rm("/set", recursive=True)
    assert (place.staged("all") / "deep" / "b.csv").read_text() == "/set/deep/b.csv"
    assert sorted(p.name for p in place.staged("some").iterdir()) == ["a.csv"]
    assert place.staged("one").read_text() == "/set/c.txt"


def test_that_an_unknown_protocol_is_said_without_the_network(place: Place) -> None:
    with pytest.raises(InputError, match=r"inputs\[0\]\.source: no protocol 'gopher'"):
        place.stage({"name": "data", "source": "gopher://host/file"})


def test_that_a_download_that_does_not_fit_is_refused_before_it_begins(
    place: Place, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/data", DATA)
    real = os.statvfs

    def full(path: object) -> object:
        return os.statvfs_result([*real(path)[:4], 1, *real(path)[5:]])  # type: ignore[arg-type]

    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(StorageError, match="are free; make room"):
        place.stage({"name": "data", "source": f"{server.url}/data"})
    assert server.gets("/data") == []


def test_that_two_processes_do_not_download_one_file_twice(place: Place, server: Server) -> None:
    server.add("/data", DATA)
    key = Store.key(f"{server.url}/data data", {})
    entered, results = threading.Event(), []

    def other() -> None:
        entered.set()
        results.append(place.stage({"name": "data", "source": f"{server.url}/data"}))

    with place.store.downloading(key):
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait(10)
        thread.join(0.3)
        assert thread.is_alive() and server.gets("/data") == []
    thread.join(20)
    assert results


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://me:secret@host/a@b:c", "https://me@host/a@b:c"),
        ("https://host/a", "https://host/a"),
        ("ftp://me@host/a", "ftp://me@host/a"),
    ],
)
def test_that_a_password_is_not_written_down(source: str, shown: str) -> None:
    assert without_password(source) == shown
