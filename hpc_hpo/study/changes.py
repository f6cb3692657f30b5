"""What changed between two forms of one study, and whether the old results still count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_hpo.study.segments import plain_segments

#: Keys, with all below them, that decide how the work is done but not what a loss means.
#: `env` and `trial.ranks` are not here: both can change what the objective computes.
HARMLESS = frozenset(
    {
        "budget",
        "blocks",
        "site",
        "account",
        "queue",
        "network",
        "checkpoint",
        "tracking",
        "trial.cores_per_rank",
        "trial.gpus_per_rank",
        "trial.ranks_per_node",
        "trial.nodes",
        "trial.threads",
        "trial.exclusive",
        "trial.rank_timeout",
        "trial.memory",
        "trial.expected_time",
        "trial.max_time",
        "trial.max_attempts",
        "trial.max_losses",
        "trial.fresh_process",
        "container.runtime",
    }
)
#: Keys of `segments` that decide who is tried when, not what a loss means.
HARMLESS_OF_SEGMENTS = frozenset({"policy", "floor", "transfer"})


class _NotSet:
    """A setting that is not there; null is a value, as of a parameter that a segment takes out."""

    def __repr__(self) -> str:
        return "(not set)"


NOT_SET = _NotSet()


@dataclass(frozen=True)
class Change:
    """One key that differs.

    Attributes:
        key: its key path.
        old: the value before, None when it was not set.
        new: the value now, None when it is not set.
        harmless: True when results from before and after belong together.
    """

    key: str
    old: Any
    new: Any
    harmless: bool

    def __str__(self) -> str:
        old, new = ("(not set)" if value is None else repr(value) for value in (self.old, self.new))
        return f"{self.key}: {old} -> {new}"


def _is_harmless(key: str) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:n]) in HARMLESS for n in range(1, len(parts) + 1))


def same_setting(old: Any, new: Any) -> bool:
    """Whether two values of a setting mean the same."""
    # Python takes true for 1; a choice of 1 and a choice of true are two.
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same_setting, old, new))
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    return bool(old == new)


def settings_of(values: Sequence[Any], key: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every setting of several studies at once: its key path and its value in each, NOT_SET where
    it is not there. What is a mapping in all of them, or a list of as many, is looked into."""
    if all(isinstance(value, Mapping) for value in values):
        for name in dict.fromkeys(name for value in values for name in value):
            own = f"{key}.{name}" if key else str(name)
            yield from settings_of([value.get(name, NOT_SET) for value in values], own)
    elif all(map(_holds_mappings, values)) and len({len(value) for value in values}) == 1:
        for number, items in enumerate(zip(*values, strict=True)):
            yield from settings_of(items, f"{key}[{number}]")
    else:
        yield key, tuple(values)


def shown(value: Any, others: Sequence[Any]) -> Any:
    """A value of `settings_of` for people: None where it is not set, and the text null where it is
    null and another one is not set."""
    if value is NOT_SET:
        return None
    return "null" if value is None and any(other is NOT_SET for other in others) else value


def _holds_mappings(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key, (before, after) in settings_of([old, new]):
        if not same_setting(before, after):
            yield key, shown(before, [after]), shown(after, [before])
    orders = [list(each) for each in (old.get("space"), new.get("space")) if each]
    if len(orders) == 2 and orders[0] != orders[1] and set(orders[0]) == set(orders[1]):
        # A seed's points depend on the order in which the parameters are drawn.
        yield "space (order)", orders[0], orders[1]


def _segment_changes(old: Any, new: Any) -> Iterator[Change]:
    """How the key `segments` differs: by what it means, not by how it is written.

    A segment more changes nothing for the others. One less would leave results without a model.
    """
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        yield Change("segments", _in_short(old), _in_short(new), harmless=False)
        return
    for key in sorted({*old, *new} & HARMLESS_OF_SEGMENTS):
        if old.get(key) != new.get(key):
            yield Change(f"segments.{key}", old.get(key), new.get(key), harmless=True)
    before, after = plain_segments(old), plain_segments(new)
    if more := [name for name in after if name not in before]:
        yield Change("segments", None, _listed(more), harmless=True)
    if gone := [name for name in before if name not in after]:
        yield Change("segments", _listed(gone), None, harmless=False)
    for name in before.keys() & after.keys():
        if before[name] == after[name]:
            continue
        for key, was, is_now in _differences(before[name], after[name]):
            harmless = key.split(".")[0] == "budget"
            yield Change(f"segments.{name}.{key}", was, is_now, harmless)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} segments)"


def _in_short(section: Any) -> Any:
    return _listed(list(plain_segments(section))) if isinstance(section, Mapping) else section


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The keys in which two studies (as of Study.to_dict) differ, in the old one's order."""
    first, second = dict(old), dict(new)
    segments = first.pop("segments", None), second.pop("segments", None)
    changes = [
        Change(key, before, after, _is_harmless(key))
        for key, before, after in _differences(first, second)
    ]
    if segments[0] != segments[1]:
        changes += _segment_changes(*segments)
    return changes
