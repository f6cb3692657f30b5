"""One row of the preflight's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Between the parts of a place: file!inner!path.
BETWEEN = "!"
#: What a row says: it will not work; it may not; nobody looked, so nothing is claimed.
Level = Literal["wrong", "warning", "not checked"]


@dataclass(frozen=True)
class Finding:
    """What does not fit a site, or could not be checked.

    Attributes:
        where: the file, and for what lies inside archives each inner path after a "!".
        found: what is there.
        needed: what the site needs.
        remedy: what to do.
        level: "wrong" makes a check fail; the others do not.
        root: the file or folder that was given to be scanned.
        kind: what was looked at, one word; findings of a kind may be dropped together.
    """

    where: str
    found: str
    needed: str
    remedy: str
    level: Level = "wrong"
    kind: str = ""
    root: str = ""


def inner(where: str, name: str) -> str:
    """The place of `name` inside `where`."""
    return f"{where}{BETWEEN}{name.removeprefix('./')}"


def damaged(where: str, what: str, why: object) -> Finding:
    """A file that begins like `what` and cannot be read to its end as one."""
    reason = " ".join(str(why).split())[:120] or type(why).__name__
    return Finding(
        where, f"damaged {what}: {reason}", f"a whole {what}", "fetch or build it again",
        kind="damaged",
    )  # fmt: skip
