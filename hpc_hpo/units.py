"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from decimal import Decimal

DURATION_FORMS = '30s, 10m, 2h, 1.5h, 1h30m or "2:00" ([hours:]minutes)'
SIZE_FORMS = "512MiB, 4GB, 16GiB (k, M, G and T of B are powers of 1000, of iB powers of 1024)"

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PARTS = re.compile(rf"(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?\Z")
_CLOCK = re.compile(r"([0-9]+):([0-9]{2})\Z")
_SIZE = re.compile(rf"({_NUMBER}) ?(B|[kKMGT]B|[KMGT]iB)\Z")
_BYTES = {"B": 1} | {
    letter + ending: base**power
    for ending, base in (("B", 1000), ("iB", 1024))
    for power, letter in enumerate("KMGT", start=1)
}


def parse_duration(value: object) -> float:
    """Seconds of a written duration; see DURATION_FORMS.

    The colon form is LSF's ``-W [hours:]minutes``, whole minutes below 60.

    Raises:
        ValueError: what is wrong and how to mend it.
    """
    if not isinstance(value, str):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise ValueError(f"a duration needs a unit: write {value}s or {value}m")
        raise ValueError("not a duration")
    text = value.strip()
    if clock := _CLOCK.match(text):
        if int(clock[2]) >= 60:
            raise ValueError("the minutes of [hours:]minutes must be below 60")
        return int(clock[1]) * 3600.0 + int(clock[2]) * 60.0
    if text.count(":") > 1:
        raise ValueError(
            "a colon form is [hours:]minutes, without seconds; write 1h30m15s instead of 1:30:15"
        )
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f"a duration needs a unit: write {text}s or {text}m")
    match = _PARTS.match(text)
    if match is None or not text:
        raise ValueError("not a duration")
    hours, minutes, seconds = (Decimal(part or 0) for part in match.groups())
    # In decimal, so that 0.1h is 360 s and the parts add up without rounding twice.
    return float(hours * 3600 + minutes * 60 + seconds)


def format_duration(seconds: float) -> str:
    """The shortest text from which parse_duration gives the same seconds back.

    Args:
        seconds: finite and not negative.
    """
    if seconds != int(seconds):
        return f"{Decimal(repr(seconds)):f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def parse_size(value: object) -> int:
    """Bytes of a written size; see SIZE_FORMS.

    Raises:
        ValueError: what is wrong and how to mend it.
    """
    if not isinstance(value, str):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise ValueError(f"a size needs a unit: write {value}GB or {value}GiB")
        raise ValueError("not a size")
    text = value.strip()
    match = _SIZE.match(text)
    if match is None:
        if bare := re.fullmatch(rf"({_NUMBER}) ?([kKMGT]?)", text):
            letter = bare[2].upper() or "G"
            raise ValueError(
                f"a size needs a unit: write {bare[1]}{letter}B or {bare[1]}{letter}iB"
            )
        raise ValueError("not a size")
    amount = Decimal(match[1]) * _BYTES[match[2].replace("k", "K")]
    if amount != int(amount):
        raise ValueError("not a whole number of bytes")
    return int(amount)


def format_size(size: int) -> str:
    """The size in the largest unit that states it exactly: 4GB, 512MiB, 1000001B."""
    exact = [(size // unit, name) for name, unit in _BYTES.items() if size % unit == 0]
    count, name = min(exact)
    return f"{count}{name}" if size else "0B"
