"""What `start_from` names, read: points with or without losses, as they stand at their source.

Another study is read from its frozen file and its journal, without a lock: it may still run, and
a torn last record is not looked at.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import read_events, replay
from hpc_hpo.model import TrialState
from hpc_hpo.schema import one_of
from hpc_hpo.space.domains import Choice, Domain
from hpc_hpo.study import Study
from hpc_hpo.study.start import StartSource
from hpc_hpo.yamlio import load_yaml

#: Of the table that ``hpc-hpo export --format csv`` writes: in front of a parameter's name.
POINT = "point."
#: Keys of a study that say what its losses mean.
MEANING = ("objective", "command", "contract", "loss", "objectives")
#: ... in front of an objective's name.
OBJECTIVE = "objective."

#: Why a trial is left out that has a loss all the same: it is that of a rung, after fewer steps.
STOPPED_EARLY = "stopped early"

Losses = float | list[float] | None


@dataclass
class Row:
    """One point of a source.

    Attributes:
        values: by the source's names of the parameters.
        segment: of the source; None where it has none.
        where: names it in reports and in the journal.
    """

    values: dict[str, Any]
    loss: Losses
    segment: str | None
    where: str


@dataclass
class Content:
    """A source as it was read.

    Attributes:
        rows: in its order.
        left: why how many of it are no rows.
        whole: its points have all parameters of their space: none is to be completed by chance.
        segmented: its rows say a segment.
        sign: +1 when its losses are minimised, -1 when they are maximised.
        differs: key -> (there, here) of what its losses mean, where that is not the same.
    """

    rows: list[Row]
    left: Counter[str] = field(default_factory=Counter)
    whole: bool = False
    segmented: bool = False
    sign: int = 1
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def read_source(source: StartSource, study: Study, key: str) -> Content:
    """The points of one source.

    Args:
        key: of its entry in the study file.

    Raises:
        InputError: it cannot be read, or holds something that is no point.
        JournalCorrupt: a record in the middle of the other study's journal is damaged.
    """
    if source.study is not None:
        return _from_study(source.study, source, study, key)
    if source.csv is not None:
        return _from_csv(source, study, key)
    return _by_hand(source, study, key)


# -------------------------------------------------------------------- another study


def _from_study(name: str, source: StartSource, study: Study, key: str) -> Content:
    path = study.folder / Path(name).expanduser()
    folder = StudyFolder(path.resolve())
    if not folder.exists:
        raise study.problem(
            f"{key}.study", "there is no study that has run", found=str(path),
            valid="the folder of a study, with its study.yaml and journal.jsonl",
        )  # fmt: skip
    plain = load_yaml(folder.study).data
    state = replay(read_events(folder.journal))
    content = Content([], whole=True, sign=-1 if plain.get("direction") == "maximize" else 1)
    for number, trial in sorted(state.trials.items()):
        loss: Losses = trial.loss if trial.values is None else trial.values
        if trial.superseded:
            content.left["of a segment that was begun again"] += 1
        elif trial.state is TrialState.STOPPED:
            content.left[STOPPED_EARLY] += 1
        elif loss is None:
            content.left["failed" if trial.final else "not ended"] += 1
        else:
            content.segmented = content.segmented or trial.segment is not None
            content.rows.append(Row(trial.point, loss, trial.segment, f"{name} trial {number}"))
    own = study.to_dict()
    for what in ("direction", *MEANING):
        if plain.get(what) != own.get(what):
            content.differs[what] = plain.get(what), own.get(what)
    _check_objectives(content, plain, source, study, key)
    return content


def _check_objectives(
    content: Content, plain: Mapping[str, Any], source: StartSource, study: Study, key: str
) -> None:
    """Refuse results that lack an objective of the study, or have others; no `accept` helps."""
    theirs = [(o["name"], o.get("direction", "minimize")) for o in plain.get("objectives") or ()]
    if theirs == [(one.name, one.direction) for one in study.objectives]:
        content.differs.pop("objectives", None)  # the rest says nothing of what they mean
    elif source.take == "best":
        for row in content.rows:
            row.loss = row.loss[0] if isinstance(row.loss, list) else row.loss
    elif content.rows:
        raise _others(study, f"{key}.study", [" ".join(one) for one in theirs])


def _others(study: Study, key: str, theirs: Sequence[str]) -> InputError:
    return study.problem(
        key, "its trials have other objectives", found=", ".join(theirs) or "one loss",
        valid=f"{_names(study) or 'one loss'} there, too; or take: best, which evaluates its "
        "best points here",
    )  # fmt: skip


def _names(study: Study) -> str:
    return ", ".join(one.name for one in study.objectives)


# -------------------------------------------------------------------- a CSV file


def _from_csv(source: StartSource, study: Study, key: str) -> Content:
    path = study.folder / Path(source.csv or "").expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise study.problem(f"{key}.csv", f"cannot be read: {error}", found=str(path)) from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = list(reader.fieldnames or ())
    _check_header(header, path)
    exported = any(column.startswith(POINT) for column in header)
    columns = _columns(header, exported, source, study, path)
    content = Content(
        [], whole=exported, sign=study.direction_sign,
        segmented="segment" in header and "segment" not in columns.values(),
    )  # fmt: skip
    domains = _domains(study, source)
    theirs = [c.removeprefix(OBJECTIVE) for c in header if exported and c.startswith(OBJECTIVE)]
    same = not exported or set(theirs) == {one.name for one in study.objectives}
    if not same and source.take != "best":
        raise _others(study, f"{key}.csv", theirs)
    for cells in reader:
        where = f"{source.csv} line {reader.line_num}"
        if None in cells or None in cells.values():
            raise InputError(
                "the line has another number of cells than the header", file=str(path),
                line=reader.line_num, valid=f"{len(header)} cells",
            )  # fmt: skip
        loss: Losses = None
        if "loss" not in columns.values():
            loss = (
                _losses(cells, study, path, reader.line_num)
                if same
                else _loss_cell(cells, "loss", path, reader.line_num)  # the first objective's
            )
        # Only those that are of one loss have a rank.
        counts = bool(theirs) or cells.get("rank", "1")
        if exported and cells.get("state") == TrialState.STOPPED.value:
            content.left[STOPPED_EARLY] += 1
            continue
        if exported and (loss is None or not counts):
            content.left["without a loss that counts"] += 1
            continue
        values = {}
        for column, name in columns.items():
            value = cell_value(cells[column], domains.get(name))
            if value is not ABSENT:
                values[name] = value
        segment = (cells.get("segment") or None) if content.segmented else None
        content.rows.append(Row(values, loss, segment, where))
    if not content.rows and not content.left:
        raise InputError(
            "a header alone: the table has no points", file=str(path), line=1,
            found=", ".join(header), valid="a line for each point below it",
        )  # fmt: skip
    content.segmented = any(row.segment is not None for row in content.rows)
    return content


def _check_header(header: list[str], path: Path) -> None:
    if not header:
        raise InputError(
            "the table is empty", file=str(path), found="no header",
            valid="a line that names the columns, as in x,loss, and a line for each point",
        )  # fmt: skip
    for column, times in Counter(header).items():
        if times > 1:
            raise InputError(
                "a column is there more than once", file=str(path), line=1, key=column,
                found=f"{times} columns of this name", valid="each column once",
            )  # fmt: skip


def _columns(
    header: list[str], exported: bool, source: StartSource, study: Study, path: Path
) -> dict[str, str]:
    """Which columns are parameters: column -> the source's name of it."""
    if exported:
        return {c: c.removeprefix(POINT) for c in header if c.startswith(POINT)}
    known = {*study.segments.parameter_names(), *source.rename, *source.drop}
    other = {"segment", *([f"{OBJECTIVE}{one.name}" for one in study.objectives] or ["loss"])}
    other -= known
    for column in header:
        if column not in known and column not in other:
            raise InputError(
                "unknown column", file=str(path), line=1, found=column,
                valid=f"{one_of(column, sorted(known | other))}; or name it in `drop`",
            )  # fmt: skip
    return {column: column for column in header if column in known}


def _domains(study: Study, source: StartSource) -> dict[str, Domain]:
    """The source's name of a parameter -> its values here, of the first segment with it."""
    found: dict[str, Domain] = {}
    for segment in study.segments.values():
        for name in segment.space.names:
            found.setdefault(name, segment.space.domain(name))
    return {**found, **{old: found[new] for old, new in source.rename.items() if new in found}}


#: What an empty cell is: no value at all.
ABSENT = object()


def cell_value(text: str, domain: Domain | None) -> Any:
    """A cell of a CSV file as a value: choices as they are written, numbers, else JSON, else text;
    ABSENT where it is empty."""
    choices = domain.values if isinstance(domain, Choice) else ()
    if text == "":
        return None if None in choices and "" not in choices else ABSENT
    if text in choices:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


def _losses(cells: Mapping[str, str], study: Study, path: Path, line: int) -> Losses:
    if not study.objectives:
        return _loss_cell(cells, "loss", path, line)
    columns = [f"{OBJECTIVE}{one.name}" for one in study.objectives]
    values = [_loss_cell(cells, column, path, line) for column in columns]
    known = [value for value in values if value is not None]
    if known and len(known) < len(values):
        raise InputError(
            "an objective is missing", file=str(path), line=line,
            key=columns[values.index(None)], valid="all of them, or none of a point to evaluate",
        )  # fmt: skip
    return known or None


def _loss_cell(cells: Mapping[str, str], column: str, path: Path, line: int) -> float | None:
    text = cells.get(column, "")
    if text == "":
        return None
    try:
        loss = float(text)
    except ValueError:
        loss = math.nan
    if not math.isfinite(loss):
        raise InputError(
            "not a loss", file=str(path), line=line, key=column, found=text,
            valid="a finite number, or nothing where the point is to be evaluated",
        )  # fmt: skip
    return loss


# -------------------------------------------------------------------- points given by hand


def _by_hand(source: StartSource, study: Study, key: str) -> Content:
    rows = list(_given(source, study, key))
    return Content(rows, sign=study.direction_sign)


def _is_loss(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


def _given(source: StartSource, study: Study, key: str) -> Iterator[Row]:
    for i, entry in enumerate(source.points or ()):
        at = f"{key}.points[{i}]"
        loss: Any = None
        values = entry
        if isinstance(entry.get("point"), dict):
            for name in entry:
                if name not in ("point", "loss"):
                    raise study.problem(
                        f"{at}.{name}", "unknown key", valid="point and loss, or parameters alone"
                    )
            values, loss = entry["point"], entry.get("loss")
        names = [one.name for one in study.objectives]
        if names and isinstance(loss, dict) and loss.keys() == set(names):
            loss = [loss[name] for name in names]
        found: list[Any] = loss if names and isinstance(loss, list) else [loss]
        if loss is not None and not (all(map(_is_loss, found)) and len(found) == (len(names) or 1)):
            what = (
                f"the mapping of {_names(study)} to finite numbers" if names else "a finite number"
            )
            raise study.problem(
                f"{at}.loss", "not a loss", found=loss,
                valid=f"{what}; without the key, the point is evaluated",
            )  # fmt: skip
        yield Row(dict(values), loss, None, f"points[{i}]")
