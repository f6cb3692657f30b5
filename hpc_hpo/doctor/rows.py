"""One row of the doctor's table."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["ok", "warn", "fail", "not checked"]


class Row(NamedTuple):
    """What was looked at, what was found, and what to do about it.

    Attributes:
        state: "fail" stops a study; "warn" may; "not checked" claims nothing.
        check: what was looked at.
        found: what is there.
        remedy: what to do; "" where there is nothing to do.
    """

    state: State
    check: str
    found: str
    remedy: str = ""
