"""Archives: unpacked once, refused by name where a member would leave the target."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.prestage.manifest import load_manifest
from hpc_hpo.prestage.verify import verify
from tests.prestage.conftest import Place
from tests.prestage.server import Server


def tarball(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive of files (name, content) and of other members."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=mode) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o755
                tar.addfile(info, io.BytesIO(member[1]))
            else:
                tar.addfile(member)
    return raw.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return raw.getvalue()


GOOD = tarball(
    ("bin/run", b"#!/bin/sh\n"), ("lib/a.so", b"a"), special("lib/b.so", tarfile.SYMTYPE, "a.so")
)


def test_that_an_archive_is_unpacked_and_its_files_are_in_the_manifest(place: Place) -> None:
    (place.path / "env.tar.gz").write_bytes(GOOD)
    manifest = place.stage({"name": "env", "source": "env.tar.gz", "unpack": True})
    home = place.staged("env")
    assert (home / "bin" / "run").read_bytes() == b"#!/bin/sh\n"
    assert os.access(home / "bin" / "run", os.X_OK)
    assert (home / "lib" / "b.so").read_bytes() == b"a"
    targets = [file.target for file in manifest.files]
    assert targets == ["inputs/env.archive/env.tar.gz", "inputs/env/bin/run", "inputs/env/lib/a.so"]
    assert list(verify(manifest, place.folder, rehash=True)) == []


def test_that_an_archive_from_a_url_is_unpacked_once_for_all_studies(
    place: Place, server: Server, tmp_path: Path
) -> None:
    server.add("/env.tar.gz", GOOD)
    env = {"name": "env", "source": f"{server.url}/env.tar.gz", "unpack": True}
    place.stage(env)
    other = Place(tmp_path / "other")
    other.path.mkdir()
    other.store = place.store
    other.stage(env)
    assert other.staged("env").samefile(place.staged("env"))
    assert len(server.gets("/env.tar.gz")) == 1


def test_that_a_zip_is_unpacked_with_its_executables(place: Place) -> None:
    info = zipfile.ZipInfo("bin/run")
    info.external_attr = (stat.S_IFREG | 0o755) << 16
    (place.path / "a.zip").write_bytes(zipped((info, b"x"), ("data/d.csv", b"1,2")))
    place.stage({"name": "a", "source": "a.zip", "unpack": True})
    assert (place.staged("a") / "data" / "d.csv").read_bytes() == b"1,2"
    assert os.access(place.staged("a") / "bin" / "run", os.X_OK)


BAD = [
    (tarball(("ok", b"x"), ("../evil", b"x")), "'../evil' is refused: its path leads upwards"),
    (tarball(("a/../../evil", b"x")), "'a/../../evil' is refused"),
    (tarball(("/etc/evil", b"x")), "'/etc/evil' is refused: its path is absolute"),
    (
        tarball(special("l", tarfile.SYMTYPE, "/etc/passwd")),
        "'l' is refused: it is a link to an absolute path",
    ),
    (
        tarball(special("h", tarfile.LNKTYPE, "/etc/passwd")),
        "'h' is refused: it is a link to an absolute path",
    ),
    (
        tarball(special("d/l", tarfile.SYMTYPE, "../../up")),
        "'d/l' is refused: it is a link out of the archive",
    ),
    (
        tarball(special("l", tarfile.SYMTYPE, "x"), ("l/evil", b"x")),
        "'l/evil' is refused: it lies below a link",
    ),
    (tarball(special("h", tarfile.LNKTYPE, "../../evil")), "'h' is refused"),
    (tarball(special("fifo", tarfile.FIFOTYPE)), "'fifo' is refused: it is a device or pipe"),
    (zipped(("../evil", b"x")), "'../evil' is refused: its path leads upwards"),
    (zipped(("/evil", b"x")), "'/evil' is refused: its path is absolute"),
    (GOOD[: len(GOOD) // 2], "is a damaged archive"),
    (b"no archive at all", "is not an archive"),
]


@pytest.mark.parametrize(("data", "words"), BAD, ids=[f"bad{n}" for n in range(len(BAD))])
@pytest.mark.parametrize("node_local", [False, True])
def test_that_an_archive_that_would_leave_its_target_is_refused_by_name(
    place: Place, data: bytes, words: str, node_local: bool
) -> None:
    (place.path / "bad.tar").write_bytes(data)
    with pytest.raises(InputError) as caught:
        place.stage({"name": "env", "source": "bad.tar", "unpack": True, "node_local": node_local})
    assert words in str(caught.value) and "input env" in str(caught.value)
    assert "bad.tar" in str(caught.value)
    assert not list(place.path.rglob("*evil*")) and not Path("/etc/evil").exists()
    manifest = load_manifest(place.folder)
    assert manifest is not None and not manifest.holds("env", None)


def test_that_a_link_in_a_zip_is_refused_by_name(place: Place) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    (place.path / "a.zip").write_bytes(zipped((info, b"/etc/passwd")))
    with pytest.raises(InputError, match="'link' is refused"):
        place.stage({"name": "a", "source": "a.zip", "unpack": True})


def test_that_a_node_local_archive_stays_an_archive(place: Place) -> None:
    (place.path / "env.tar.gz").write_bytes(GOOD)
    place.stage({"name": "env", "source": "env.tar.gz", "kind": "environment", "node_local": True})
    assert place.staged("env").is_file()


def test_that_an_environment_is_unpacked_without_being_told(place: Place) -> None:
    (place.path / "env.tar.gz").write_bytes(GOOD)
    place.stage({"name": "env", "source": "env.tar.gz", "kind": "environment"})
    assert (place.staged("env") / "bin" / "run").exists()


def test_that_a_folder_is_an_environment_too(place: Place) -> None:
    (place.path / "env" / "bin").mkdir(parents=True)
    (place.path / "env" / "bin" / "run").write_text("x")
    place.stage({"name": "env", "source": "env", "kind": "environment"})
    assert (place.staged("env") / "bin" / "run").read_text() == "x"


def test_that_another_archive_takes_the_place_of_the_first(place: Place) -> None:
    env = {"name": "env", "source": "env.tar.gz", "unpack": True}
    (place.path / "env.tar.gz").write_bytes(GOOD)
    place.stage(env)
    first = place.store.tree(place_sha(place)).resolve()
    (place.path / "env.tar.gz").write_bytes(tarball(("new", b"new")))
    manifest = place.stage(env)
    assert [p.name for p in place.staged("env").iterdir()] == ["new"]
    assert list(verify(manifest, place.folder, rehash=True)) == []
    assert (first / "bin" / "run").exists(), "another study may use it"


def test_that_an_input_may_stop_being_unpacked_and_become_so_again(place: Place) -> None:
    (place.path / "env.tar.gz").write_bytes(GOOD)
    env = {"name": "env", "source": "env.tar.gz"}
    for unpack in (True, False, True):
        manifest = place.stage({**env, "unpack": unpack})
        assert place.staged("env").is_dir() is unpack
        assert list(verify(manifest, place.folder, rehash=True)) == []
    assert (place.staged("env") / "bin" / "run").exists()


def test_that_a_dropped_input_s_tree_is_left_to_other_studies(place: Place) -> None:
    (place.path / "env.tar.gz").write_bytes(GOOD)
    place.stage({"name": "env", "source": "env.tar.gz", "unpack": True})
    tree = place.store.tree(place_sha(place))
    place.stage()
    assert (tree / "bin" / "run").exists()
    assert not (place.folder.inputs / "env").exists()
    assert not list(place.folder.inputs.rglob("*"))


def place_sha(place: Place) -> str:
    """The sha256 of the archive that is staged."""
    manifest = load_manifest(place.folder)
    assert manifest is not None
    return next(f.sha256 for f in manifest.files if ".archive/" in f.target)
