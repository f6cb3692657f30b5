"""Failures on the page: groups by cause, each with its examples' last words."""

from __future__ import annotations

from typing import Any

from hpc_hpo.results.failures import failure_groups
from hpc_hpo.results.report.material import Material

MOST_GROUPS = 50
#: Of trials named in a group, and characters at the end of a log or traceback.
MOST_TRIALS, TAIL = 20, 4000


def failures(material: Material) -> dict[str, Any]:
    """The groups of failure_groups, the dearest first.

    Returns:
        count: how many there are; groups: the first of them, with end, kind, cause, slices,
        trials (some of their numbers), trial_count, given_up (a count), hosts (the five of most
        slices), lost_hours (worker-hours) and examples (trial, slice, host, message, text).
    """
    groups = failure_groups(material.state)
    return {"count": len(groups), "groups": [_group(g.plain()) for g in groups[:MOST_GROUPS]]}


def _group(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": plain["group"],
        "end": plain["end"],
        "kind": plain["kind"],
        "cause": plain["cause"],
        "slices": plain["slices"],
        "trial_count": len(plain["trials"]),
        "trials": plain["trials"][:MOST_TRIALS],
        "given_up": len(plain["given_up"]),
        "hosts": list(plain["hosts"].items())[:5],
        "host_count": len(plain["hosts"]),
        "lost_hours": plain["lost_worker_seconds"] / 3600,
        "examples": [_example(example) for example in plain["examples"]],
    }


def _example(example: dict[str, Any]) -> dict[str, Any]:
    error = example["error"] or {}
    texts = [
        {"title": title, "text": text[-TAIL:].rstrip(), "cut": len(text) > TAIL}
        for title, key in (("traceback", "traceback"), ("end of its log", "log_tail"))
        if (text := error.get(key))
    ]
    return {
        "trial": example["trial"],
        "slice": example["slice"],
        "host": example["host"],
        "message": error.get("message", "")[:TAIL],
        "texts": texts,
    }
