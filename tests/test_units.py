"""Durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("10m", 600),
        ("2h", 7200),
        ("1.5h", 5400),
        ("0.1h", 360),
        ("1h30m", 5400),
        ("1h30m15s", 5415),
        ("0.5s", 0.5),
        ("2:00", 7200),
        ("0:30", 1800),
        ("120:05", 432300),
        (" 5m ", 300),
        ("90m", 5400),
    ],
)
def test_that_a_duration_is_read_as_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (120, "needs a unit: write 120s or 120m"),
        (1.5, "needs a unit"),
        ("120", "needs a unit"),
        (True, "not a duration"),
        (None, "not a duration"),
        ("", "not a duration"),
        ("soon", "not a duration"),
        ("30m1h", "not a duration"),
        ("-5m", "not a duration"),
        ("5 m", "not a duration"),
        ("1e3s", "not a duration"),
        ("1:30:00", "write 1h30m15s"),
        ("1:75", "below 60"),
        ("2:0", "not a duration"),
        ([], "not a duration"),
    ],
)
def test_that_an_unclear_duration_is_refused_with_a_remedy(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(value)


@given(st.floats(0, 1e9) | st.integers(0, 10**7).map(float))
def test_that_a_formatted_duration_gives_the_same_seconds_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


def test_that_durations_are_formatted_in_the_units_people_use() -> None:
    durations = (0, 59, 60, 5400, 3661, 0.25)
    assert [format_duration(s) for s in durations] == [
        "0s",
        "59s",
        "1m",
        "1h30m",
        "1h1m1s",
        "0.25s",
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("10 kB", 10_000),
        ("100B", 100),
        ("2TB", 2 * 10**12),
    ],
)
def test_that_a_size_is_read_as_written(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (16, "write 16GB or 16GiB"),
        ("16", "write 16GB or 16GiB"),
        ("4G", "write 4GB or 4GiB"),
        ("4M", "write 4MB or 4MiB"),
        ("1.5B", "whole number of bytes"),
        ("lots", "not a size"),
        (True, "not a size"),
        (None, "not a size"),
    ],
)
def test_that_an_unclear_size_is_refused_with_a_remedy(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_size(value)


@given(st.integers(0, 2**60))
def test_that_a_formatted_size_gives_the_same_bytes_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_that_a_size_is_formatted_in_the_unit_that_fits() -> None:
    assert [format_size(s) for s in (0, 4 * 10**9, 2**29, 1001)] == ["0B", "4GB", "512MiB", "1001B"]
