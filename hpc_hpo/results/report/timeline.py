"""The allocation timeline: what every worker of every block did, and what was idle or lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hpc_hpo.model import SliceEnd, SliceRecord, Trial
from hpc_hpo.results.report.material import Material, integral, rounded

#: More lanes or slices than this are drawn as rows of blocks, by the share that was busy.
MOST_LANES, MOST_SLICES = 200, 6000
#: Stretches of time, and rows, of what is aggregated.
STRETCHES, MOST_ROWS = 240, 100
#: Ends of slices in the order in which they are stacked; LOST_WORK is what has to be done again.
ENDS = tuple(end.value for end in SliceEnd)
LOST_WORK = "to do again"

Placed = tuple[Trial, SliceRecord]


def _placed(material: Material) -> Iterator[Placed]:
    """Slices that ran somewhere and have ended."""
    for trial in material.state.trials.values():
        for record in trial.slices:
            if record.started is not None and record.ended is not None and record.end is not None:
                yield trial, record


def timeline(
    material: Material, most_lanes: int = MOST_LANES, most_slices: int = MOST_SLICES
) -> dict[str, Any]:
    """The timeline; times in hours since the study began.

    Returns:
        ends: what the codes of ends mean; blocks: see _blocks; lanes: names, or None where there
        are too many; slices: columns, or None; rows: see _rows, or None; load: see _load;
        open: slices that are at work now.
    """
    placed = list(_placed(material))
    lanes = _lanes(material, placed)
    drawn = len(lanes) <= most_lanes and len(placed) <= most_slices
    index = {key: number for number, key in enumerate(lanes)}
    return {
        "ends": list(ENDS),
        "blocks": _blocks(material, lanes),
        "lane_count": len(lanes),
        "slice_count": len(placed),
        "open": sum(trial.open_slice is not None for trial in material.state.trials.values()),
        "lanes": [_lane_name(*key) for key in lanes] if drawn else None,
        "slices": _slices(material, placed, index) if drawn else None,
        "rows": None if drawn else _rows(material, placed),
        "load": _load(material, placed),
        "until": _hours(material, [material.until])[0],
    }


Lane = tuple[str, str, str]


def _lane_of(record: SliceRecord) -> Lane:
    return record.block or "", record.host or "", record.worker or ""


def _lane_name(block: str, host: str, worker: str) -> str:
    place = f"{host} worker {worker}" if host else "a worker that ran nothing"
    return f"block {block}, {place}" if block else place


def _natural(text: str) -> tuple[int, str]:
    # Workers and hosts are numbered: 2 comes before 10.
    return len(text), text


def _lanes(material: Material, placed: list[Placed]) -> list[Lane]:
    """(block, host, worker) of every lane, by block. Workers that ran nothing have one, too, so
    that a block's lanes are as many as its workers."""
    seen: dict[str, set[Lane]] = {}
    for _, record in placed:
        seen.setdefault(record.block or "", set()).add(_lane_of(record))
    spans = material.block_spans()
    order = [name for name, *_ in spans] + sorted(seen.keys() - {name for name, *_ in spans})
    lanes: list[Lane] = []
    for block in order:
        own = sorted(seen.get(block, ()), key=lambda k: (_natural(k[1]), _natural(k[2])))
        held = material.state.blocks.get(block)
        idle = max(0, held.workers - len(own)) if held is not None else 0
        lanes += own + [(block, "", f"{n}") for n in range(idle)]
    return lanes


def _hours(material: Material, times: Any) -> list[Any]:
    return rounded((np.asarray(times, dtype=float) - material.begin) / 3600, 7)


def _blocks(material: Material, lanes: list[Lane]) -> list[dict[str, Any]]:
    """Each block: id, job, start, end, deadline, workers, reason, first lane and how many."""
    first: dict[str, int] = {}
    count: dict[str, int] = {}
    for number, (block, *_) in enumerate(lanes):
        first.setdefault(block, number)
        count[block] = count.get(block, 0) + 1
    found = []
    for name, start, end in material.block_spans():
        record = material.state.blocks[name]
        deadline = record.deadline
        found.append(
            {
                "id": name, "job": record.job, "workers": record.workers,
                "reason": record.reason, "ended": record.ended is not None,
                "start": _hours(material, [start])[0], "end": _hours(material, [end])[0],
                "deadline": None if deadline is None else _hours(material, [deadline])[0],
                "lane": first.get(name), "lanes": count.get(name, 0),
            }
        )  # fmt: skip
    return found


def _slices(material: Material, placed: list[Placed], index: dict[Lane, int]) -> dict[str, Any]:
    """A column for each thing that is drawn or told of a slice."""
    placed = sorted(placed, key=lambda p: (p[1].started or 0.0, p[0].id))
    records = [record for _, record in placed]
    return {
        "lane": [index[_lane_of(r)] for r in records],
        "start": _hours(material, [r.started for r in records]),
        "end": _hours(material, [r.ended for r in records]),
        "code": [ENDS.index(r.end.value) for r in records if r.end is not None],
        "lost": rounded([r.wasted_s / 3600 for r in records], 5),
        "trial": [trial.id for trial, _ in placed],
        "slice": [r.number for r in records],
        "of": [len(trial.slices) for trial, _ in placed],
        "reason": [r.reason for r in records],
        "loss": [trial.loss for trial, _ in placed],
        "segment": [trial.segment for trial, _ in placed],
        "error": [(r.error or {}).get("message", "")[:200] or None for r in records],
    }


def _intervals(placed: list[Placed]) -> dict[str, np.ndarray]:
    """(begin, end, workers) of what workers did, shape (n, 3), by how the slices ended; what has
    to be done again stands apart, at the end of its slice."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for _, record in placed:
        assert record.started is not None and record.ended is not None and record.end is not None
        end = max(record.started, record.ended)
        kept = max(record.started, end - record.wasted_s)
        found.setdefault(record.end.value, []).append((record.started, kept, record.width))
        if end > kept:
            found.setdefault(LOST_WORK, []).append((kept, end, record.width))
    return {name: np.array(rows) for name, rows in found.items()}


def _held(material: Material) -> np.ndarray:
    """(begin, end, workers) of every block, shape (n, 3)."""
    blocks = material.state.blocks
    rows = [(a, b, blocks[name].workers) for name, a, b in material.block_spans()]
    return np.array(rows, dtype=float).reshape(-1, 3)


def _load(material: Material, placed: list[Placed]) -> dict[str, Any]:
    """Workers over time: edges (hours), held (mean of each stretch), busy by how the slices ended;
    and the same as sums, in worker-hours."""
    edges = np.linspace(material.begin, max(material.until, material.begin + 1.0), STRETCHES + 1)
    width = np.diff(edges)
    intervals, held = _intervals(placed), _held(material)

    def mean(rows: np.ndarray) -> np.ndarray:
        return np.diff(integral(edges, rows[:, 0], rows[:, 1], rows[:, 2])) / width

    def total(rows: np.ndarray) -> float:
        return float(((rows[:, 1] - rows[:, 0]) * rows[:, 2]).sum() / 3600)

    busy = {name: intervals[name] for name in (*ENDS, LOST_WORK) if name in intervals}
    worked = sum(total(rows) for rows in busy.values())
    return {
        "edges": _hours(material, edges),
        "held": rounded(mean(held), 5),
        "busy": {name: rounded(mean(rows), 5) for name, rows in busy.items()},
        "worker_hours": {
            **{name: total(rows) for name, rows in busy.items()},
            "idle": max(0.0, total(held) - worked),
        },
    }


def _rows(material: Material, placed: list[Placed]) -> dict[str, Any]:
    """Blocks as rows, in order of their start, several to a row where there are many: the share
    of workers that was busy in each stretch of time (None while no block of the row ran)."""
    spans = material.block_spans()
    per_row = max(1, -(-len(spans) // MOST_ROWS))
    row_of = {name: number // per_row for number, (name, *_) in enumerate(spans)}
    count = max(row_of.values(), default=-1) + 1
    edges = np.linspace(material.begin, max(material.until, material.begin + 1.0), STRETCHES + 1)
    busy: list[list[tuple[float, float, float]]] = [[] for _ in range(count)]
    held: list[list[tuple[float, float, float]]] = [[] for _ in range(count)]
    for _, record in placed:
        row = row_of.get(record.block or "")
        if row is not None:
            assert record.started is not None and record.ended is not None
            busy[row].append((record.started, record.ended, record.width))
    for name, start, end in spans:
        held[row_of[name]].append((start, end, material.state.blocks[name].workers))
    shares = []
    for own, of in zip(busy, held, strict=True):
        worked, there = (_passed(edges, rows) for rows in (own, of))
        # A sliver of a block at the edge of a stretch would be all noise.
        seen = there > 0.02 * there.max(initial=0.0)
        share = np.full(len(there), np.nan)
        share[seen] = np.clip(worked[seen] / there[seen], 0.0, 1.0)
        shares.append(rounded(share, 3))
    names = [name for name, *_ in spans]
    return {
        "edges": _hours(material, edges),
        "per_row": per_row,
        "names": [[names[n * per_row], names[min((n + 1) * per_row, len(names)) - 1]]
                  for n in range(count)],
        "share": shares,
    }  # fmt: skip


def _passed(edges: np.ndarray, rows: list[tuple[float, float, float]]) -> np.ndarray:
    """Worker-seconds in each stretch."""
    table = np.array(rows, dtype=float).reshape(-1, 3)
    found: np.ndarray = np.diff(integral(edges, table[:, 0], table[:, 1], table[:, 2]))
    return found
