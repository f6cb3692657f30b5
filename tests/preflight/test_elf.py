"""ELF objects against a site: machine, byte order, ABI, pages, glibc."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.preflight import Target, target_of
from hpc_hpo.preflight.elf import glibc_needed, scan_elf
from hpc_hpo.preflight.window import window_on
from hpc_hpo.site import load_site
from hpc_hpo.site.target import ARCHITECTURES, parse_glibc
from tests.preflight.conftest import SUMMIT, Scan
from tests.preflight.objects import ARM64, PPC64, X86, elf


def test_that_an_object_of_the_site_s_own_fits(look: Scan) -> None:
    assert look(elf()) == []


@pytest.mark.parametrize(
    ("content", "found", "needed"),
    [
        (elf(X86), "x86_64", "ppc64le"),
        (elf(ARM64, flags=0), "aarch64", "ppc64le"),
        (elf(PPC64, little=False, flags=1), "ppc64 (big-endian)", "ppc64le"),
        (elf(flags=1), "ELF ABI version 1", "ELF ABI version 2"),
        (elf(align=0x1000), "aligned to 4 KiB", "64 KiB"),
        (elf(align=1), "aligned to 1 bytes", "64 KiB"),
        (elf(glibc=["GLIBC_2.17", "GLIBC_2.34", "GLIBC_2.4"]), "glibc 2.34", "glibc 2.28"),
        (elf(glibc=["GLIBC_ABI_DT_RELR"]), "glibc 2.36", "glibc 2.28"),
        (elf(interpreter="/lib/ld-musl-powerpc64le.so.1"), "musl", "glibc"),
    ],
)
def test_that_what_does_not_fit_is_told_with_what_is_needed(
    look: Scan, content: bytes, found: str, needed: str
) -> None:
    (row,) = look(content)
    assert found in row.found and needed in row.needed and row.remedy
    assert row.level == "wrong"


@pytest.mark.parametrize(
    "content",
    [
        elf(flags=0),
        elf(align=0x20000),
        elf(align=0),
        elf(glibc=[]),
        elf(glibc=["GLIBC_2.28", "GLIBC_2.4", "GLIBC_PRIVATE", "GCC_9.9"]),
        elf(190),  # a GPU's code
        elf(224),
        elf(247),
    ],
)
def test_that_what_fits_or_is_for_no_cpu_is_not_told(look: Scan, content: bytes) -> None:
    assert look(content) == []


def test_that_byte_order_alone_tells_the_two_powers_apart(look: Scan) -> None:
    big = replace(SUMMIT, arch_name="ppc64", arch=ARCHITECTURES["ppc64"])
    assert look(elf(little=False, flags=1), target=big) == []
    assert look(elf(), target=big)[0].found == "ppc64le"


def test_that_an_unknown_glibc_is_told_as_not_checked(look: Scan) -> None:
    (row,) = look(elf(glibc=["GLIBC_2.30"]), target=replace(SUMMIT, glibc=None))
    assert row.level == "not checked" and "2.30" in row.found


def test_that_an_unknown_page_size_is_told_once_as_not_checked(look: Scan) -> None:
    rows = look(elf(align=1), target=replace(SUMMIT, page_size=None))
    assert [(row.level, row.kind) for row in rows] == [("not checked", "pages")]


def test_that_a_fact_nobody_could_check_is_marked(look: Scan) -> None:
    summit = target_of(load_site("summit"))
    assert summit.glibc == (2, 28) and summit.page_size == 65536 and summit.arch_name == "ppc64le"
    (row,) = look(elf(glibc=["GLIBC_2.29"]), target=summit)
    assert row.needed == "at most glibc 2.28 (unverified)"


def test_that_an_object_too_large_to_keep_is_read_from_both_ends() -> None:
    whole = elf(glibc=["GLIBC_2.34"], padding=50_000)
    parts = window_on(io.BytesIO(whole), kept=4096)
    assert [row.kind for row in scan_elf(parts, "x", SUMMIT)] == ["glibc"]


def test_that_what_lies_between_the_ends_is_not_claimed() -> None:
    whole = elf() + b"\0" * 9000  # the section table is now far from the end
    whole = whole[:4096] + b"\0" * 3_000_000 + whole[4096:]
    moved = bytearray(whole)
    moved[40:48] = (1_500_000).to_bytes(8, "little")
    (row,) = scan_elf(window_on(io.BytesIO(bytes(moved)), kept=4096), "x", SUMMIT)
    assert row.level == "not checked" and "only the ends" in row.found


@given(st.binary(max_size=300), st.integers(1, 64), st.lists(st.integers(0, 400), max_size=6))
def test_that_a_window_shows_what_the_stream_held(
    content: bytes, kept: int, places: list[int]
) -> None:
    parts = window_on(io.BytesIO(content), kept=kept)
    for place in places:
        if place < kept or place >= len(content) - kept:
            parts.seek(place)
            assert parts.read(1) == content[place : place + 1]


@given(st.data())
def test_that_a_damaged_object_is_a_finding_and_no_crash(data: st.DataObject) -> None:
    content = bytearray(elf(glibc=["GLIBC_2.34"], interpreter="/lib/ld.so"))
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(4, len(content)))
    for row in scan_elf(io.BytesIO(bytes(content[:cut])), "x", SUMMIT):
        assert row.where == "x" and row.found and row.needed and row.remedy


@pytest.mark.parametrize("cut", [4, 16, 63, 100, 200])
def test_that_a_cut_object_is_told_as_damaged(look: Scan, cut: int) -> None:
    assert [row.kind for row in look(elf()[:cut])] == ["damaged"]


@pytest.mark.parametrize(
    ("place", "size", "count"),
    [
        (60, 2, 0xFFFF),  # sections
        (56, 2, 0xFFFE),  # segments
        (-64 * 2 + 44, 4, 0xFFFFFFFF),  # files that versions are of: sh_info of .gnu.version_r
        (None, 2, 0xFFFF),  # versions of a file: vn_cnt
    ],
)
def test_that_a_damaged_count_is_not_followed(
    look: Scan, place: int | None, size: int, count: int
) -> None:
    content = bytearray(elf())
    if place is None:
        need = content.index(b"\x01\x00\x01\x00", 120)
        place = need + 2
    place %= len(content)
    content[place : place + size] = count.to_bytes(size, "little")
    assert [row.kind for row in look(bytes(content))] == ["damaged"]


versions = st.lists(st.integers(0, 99), min_size=2, max_size=3)


@given(versions, versions)
def test_that_glibc_versions_compare_as_numbers(one: list[int], other: list[int]) -> None:
    texts = [".".join(map(str, version)) for version in (one, other)]
    parsed = [parse_glibc(text) for text in texts]
    assert parsed == [tuple(one), tuple(other)]
    object_ = io.BytesIO(elf(glibc=[f"GLIBC_{text}" for text in texts]))
    assert glibc_needed(ELFFile(object_)) == (max(tuple(one), tuple(other)), True)


@given(st.text(max_size=12))
def test_that_any_text_is_a_glibc_version_or_none(text: str) -> None:
    version = parse_glibc(text)
    assert version is None or ".".join(map(str, version)).replace(".", "").isdigit()


def test_that_this_python_fits_this_machine() -> None:
    here = target_of(load_site("local"))
    assert here.arch is not None and here.page_size and here.glibc is not None
    with open(Path(sys.executable).resolve(), "rb") as stream:
        assert list(scan_elf(stream, "python", here)) == []


def test_that_an_architecture_nobody_knows_is_told(look: Scan) -> None:
    odd = Target("odd", "vax", None, 4096, (2, 28), (3, 11))
    assert [row.level for row in look(elf(), target=odd)] == ["not checked"]
