"""Archives in archives, wheels, folders: whatever is inside is found, and named."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_hpo.preflight import archive, scan
from hpc_hpo.preflight import scan as scan_paths
from tests.preflight.conftest import SUMMIT, Scan, places
from tests.preflight.objects import X86, elf, oci, sif, tar, zipped

BAD, GOOD = elf(X86), elf()
DEEP = zipped({"a/b.so": BAD})


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("env.tar", tar({"lib/a.so": GOOD, "lib/b.so": BAD}, "w"), "lib/b.so"),
        ("env.tar.gz", tar({"./lib/b.so": BAD}), "lib/b.so"),
        ("env.tar.bz2", tar({"b.so": BAD}, "w:bz2"), "b.so"),
        ("env.tar.xz", tar({"b.so": BAD}, "w:xz"), "b.so"),
        ("env.tar.zst", zst(tar({"b.so": BAD}, "w")), "b.so"),
        ("data.zip", zipped({"b.so": BAD}), "b.so"),
        ("p.conda", zipped({"pkg-p.tar.zst": zst(tar({"lib/b.so": BAD}, "w"))}),
         "pkg-p.tar.zst!lib/b.so"),
        ("deep.tar.gz", tar({"e/env.tar.xz": tar({"w/a-1-py3-none-any.whl": DEEP}, "w:xz")}),
         "e/env.tar.xz!w/a-1-py3-none-any.whl!a/b.so"),
    ],
)  # fmt: skip
def test_that_an_object_hidden_in_archives_is_named_with_its_way(
    look: Scan, name: str, content: bytes, place: str
) -> None:
    found = look(content, name)
    assert places(found) == [place]
    assert (found[0].found, found[0].needed) == ("x86_64", "ppc64le")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zst])
def test_that_a_lone_compressed_object_is_found(look: Scan, pack) -> None:
    (row,) = look(pack(BAD), "tool.gz")
    assert row.found == "x86_64" and "!" not in row.where


def test_that_a_wheelhouse_with_one_x86_object_hidden_in_an_archive_is_refused_with_its_name(
    tmp_path: Path,
) -> None:
    house = tmp_path / "wheels"
    house.mkdir()
    wheel = "{}-1.0-cp311-cp311-manylinux_2_17_ppc64le.whl"
    (house / wheel.format("good")).write_bytes(zipped({"good/_c.so": GOOD}))
    data = tar({"native/solver.so": BAD, "readme": b"x"})
    (house / wheel.format("sly")).write_bytes(zipped({"sly/_c.so": GOOD, "sly/data.tgz": data}))
    (row,) = scan([house], SUMMIT)
    assert row.where == f"{house}/{wheel.format('sly')}!sly/data.tgz!native/solver.so"
    assert (row.found, row.needed, row.level) == ("x86_64", "ppc64le", "wrong")


@pytest.mark.parametrize(
    ("tags", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp311-cp311-manylinux_2_17_ppc64le.manylinux2014_ppc64le", True),
        ("cp311-cp311-manylinux_2_28_ppc64le", True),
        ("cp38-abi3-manylinux_2_17_ppc64le", True),
        ("cp311-cp311-linux_ppc64le", True),
        ("cp311-cp311-manylinux_2_34_ppc64le", False),
        ("cp310-cp310-manylinux_2_17_ppc64le", False),
        ("cp312-abi3-manylinux_2_17_ppc64le", False),
        ("cp311-cp311-manylinux_2_17_x86_64", False),
        ("cp311-cp311-musllinux_1_2_ppc64le", False),
        ("cp311-cp311-macosx_11_0_arm64", False),
        ("pp310-pypy310_pp73-manylinux_2_17_ppc64le", False),
    ],
)
def test_that_a_wheel_s_tags_are_held_against_python_glibc_and_architecture(
    look: Scan, tags: str, fits: bool
) -> None:
    found = look(zipped({"p/__init__.py": b""}), f"p-1.0-{tags}.whl")
    assert ([] if fits else ["wheel"]) == [row.kind for row in found]


def test_that_a_name_that_is_no_wheel_s_is_told(look: Scan) -> None:
    assert [row.kind for row in look(zipped({}), "what.whl")] == ["damaged"]
    assert [row.kind for row in look(b"<html>", "a-1-py3-none-any.whl")] == ["damaged"]


def test_that_a_link_to_the_same_file_is_looked_at_once(tmp_path: Path) -> None:
    (tmp_path / "libx.so.1").write_bytes(BAD)
    (tmp_path / "libx.so").symlink_to("libx.so.1")
    (tmp_path / "nowhere.so").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    assert len(scan([tmp_path], SUMMIT)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_that_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(BAD)
    (tmp_path / "x.so").chmod(0)
    assert [row.level for row in scan([tmp_path], SUMMIT)] == ["not checked"]


def test_that_a_missing_path_is_told(tmp_path: Path) -> None:
    assert [row.level for row in scan([tmp_path / "gone"], SUMMIT)] == ["not checked"]


def test_that_a_system_with_its_own_libc_is_not_held_against_the_site_s(look: Scan) -> None:
    new = elf(glibc=["GLIBC_2.39"])
    assert len(look(tar({"usr/bin/x": new}), "a.tgz")) == 1
    system = {"usr/bin/x": new, "lib/powerpc64le-linux-gnu/libc.so.6": elf(), "usr/bin/y": BAD}
    assert places(look(tar(system), "b.tgz")) == ["usr/bin/y"]


def test_that_java_s_archives_for_many_systems_are_left_alone(look: Scan) -> None:
    assert look(zipped({"linux-x86-64/x.so": BAD}), "x.jar") == []


def test_that_an_endless_nest_of_archives_is_given_up_and_said_so(look: Scan) -> None:
    content = BAD
    for _ in range(12):
        content = gzip.compress(content)
    (row,) = look(content)
    assert row.level == "not checked" and "deep" in row.found


def test_that_zstd_without_its_library_is_told_as_not_checked(
    look: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive.importlib.util, "find_spec", lambda name: None)
    (row,) = look(zst(tar({"b.so": BAD}, "w")))
    assert row.level == "not checked" and "zstandard" in row.remedy


def test_that_a_large_member_is_read_past_and_the_next_one_found(look: Scan) -> None:
    assert places(look(tar({"data": os.urandom(3 << 20), "b.so": BAD}))) == ["b.so"]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.xz", "x.zip"])
def test_that_a_cut_archive_is_told_and_what_came_before_is_kept(look: Scan, name: str) -> None:
    files = {"a.so": BAD, "rest": os.urandom(200_000)}
    whole = zipped(files) if name == "x.zip" else tar(files, "w:" + name[-2:])
    found = look(whole[: len(whole) // 2], name)
    assert "damaged" in [row.kind for row in found]
    if name != "x.zip":  # whose table is at its end
        assert "a.so" in places(found)


SAMPLES = [
    tar({"a/b.so": BAD, "c": b"x" * 900}),
    tar({"a/b.so": BAD}, "w"),
    tar({"a/b.so": BAD}, "w:xz"),
    tar({"a/b.so": BAD}, "w:bz2"),
    zst(tar({"a/b.so": BAD}, "w")),
    zipped({"a-1-py3-none-any.whl": zipped({"b.so": BAD})}),
    tar(oci("ppc64le", [tar({"x": BAD})]), "w"),
    sif("06", "06", b"hsqs" + b"\0" * 200),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_that_damaged_files_are_findings_and_no_crash(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "x.whl"
    file.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    for row in scan_paths([file], SUMMIT):
        assert row.found and row.needed and row.remedy


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([m for m, _ in archive._MAGIC] + [b""]), st.binary(max_size=700))
def test_that_any_bytes_are_scanned_without_a_crash(
    tmp_path: Path, magic: bytes, rest: bytes
) -> None:
    file = tmp_path / "x"
    file.write_bytes(magic + rest)
    scan_paths([file], SUMMIT)
