"""Ask and tell over files, as iDDS calls a steering command.

The input file holds every point so far with its loss, or null while it has none; the output file
gets the new points. Nothing is kept between two calls. A segmented file has one search space
for each model, and points that begin with their model's id:

    {"points": [[{"A": 1}, 0.3], [{"A": 2}, null]], "opt_space": {...}}
    {"points": [[[0, {"A": 1}], 0.3]], "opt_space": [{"model_id": 0, "search_space": {...}}]}

Shapes as idds 2.6.21 writes them (atlas/workflowv2/atlashpowork.py) and hpogrid 1.3.3 reads them
(interface/idds/steering.py).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.fsio import write_atomic
from hpc_hpo.model import Point
from hpc_hpo.optimizers.registry import create
from hpc_hpo.space import Space
from hpc_hpo.space.reading import is_number, nearest

#: Answers within a second of Python's start, also with a thousand points.
DEFAULT_OPTIMIZER = "tpe"
_KEYS = ("points", "opt_space")
_MODEL_KEYS = ("model_id", "search_space")


@dataclass
class Model:
    """One search space with its points so far.

    Attributes:
        id: the model's id as the file has it; None in a file without segments.
        space: its search space.
        points: (point, loss or None, whether it has been told) in the file's order.
    """

    id: Any
    space: Space
    points: list[tuple[Point, float | None, bool]] = field(default_factory=list)


@dataclass
class SteeringInput:
    """A steering input file.

    Attributes:
        segmented: whether points begin with their model's id.
        models: by the text of their id, in the file's order.
    """

    segmented: bool
    models: dict[str, Model]


def read_input(text: str | bytes, file: str) -> SteeringInput:
    """Read a steering input file.

    Losses may be NaN and Infinity, as Python's json writes them.

    Raises:
        InputError: it is not such a file; the text names the key or the point's index.
    """
    data = parse_json(text, file)
    if not isinstance(data, dict):
        raise InputError(
            "not a steering input", file=file, found=type(data).__name__,
            valid='{"points": [...], "opt_space": ...}',
        )  # fmt: skip
    _only(data, _KEYS, file, "")
    space, points = data["opt_space"], data["points"]
    if isinstance(space, list):
        given = SteeringInput(True, _models(space, file))
    elif isinstance(space, dict):
        given = SteeringInput(False, {"": Model(None, _space(space, file, "opt_space"))})
    else:
        raise InputError(
            "no search space", file=file, key="opt_space", found=space,
            valid="an object of parameters, or a list of {model_id, search_space} "
            "(phpo's --searchSpaceFile)",
        )  # fmt: skip
    if not isinstance(points, list):
        raise InputError(
            "not a list", file=file, key="points", found=type(points).__name__,
            valid="a list of [point, loss or null]",
        )  # fmt: skip
    for index, entry in enumerate(points):
        _take(given, entry, f"points[{index}]", file)
    return given


def parse_json(text: str | bytes, file: str) -> Any:
    """The document in a JSON file.

    Raises:
        InputError: it is empty, half written, or no JSON; the text has the line.
    """
    if not text.strip():
        raise InputError("the file is empty", file=file, valid="a JSON document")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(error.doc.rstrip()) - 1
        half = " (half written?)" if at_end or "Unterminated" in error.msg else ""
        raise InputError(
            f"not valid JSON{half}: {error.msg}", file=file, line=error.lineno
        ) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not valid JSON: {error}", file=file) from None


def _only(content: Mapping[str, Any], keys: Sequence[str], file: str, where: str) -> None:
    """Refuse unknown and missing keys."""
    at = f"{where}." if where else ""
    for key in content:
        if key not in keys:
            raise InputError(
                f"unknown key{nearest(key, keys)}", file=file, key=f"{at}{key}", valid=keys
            )
    for key in keys:
        if key not in content:
            raise InputError("this key is required", file=file, key=f"{at}{key}")


def _space(spec: Mapping[str, Any], file: str, key: str) -> Space:
    return Space.parse(spec, file=file, key=key)


def _models(specs: Sequence[Any], file: str) -> dict[str, Model]:
    if not specs:
        raise InputError("no search space", file=file, key="opt_space", found="an empty list")
    models: dict[str, Model] = {}
    for index, spec in enumerate(specs):
        key = f"opt_space[{index}]"
        if not isinstance(spec, dict):
            raise InputError(
                "not an object", file=file, key=key, found=type(spec).__name__, valid=_MODEL_KEYS
            )
        _only(spec, _MODEL_KEYS, file, key)
        number, space = spec["model_id"], spec["search_space"]
        if isinstance(number, bool) or not isinstance(number, (int, str)):
            raise InputError(
                "not a model's id", file=file, key=f"{key}.model_id", found=number,
                valid="a whole number or text",
            )  # fmt: skip
        if str(number) in models:
            raise InputError(
                "two models have this id", file=file, key=f"{key}.model_id", found=number
            )
        models[str(number)] = Model(number, _space(space, file, f"{key}.search_space"))
    return models


def _take(given: SteeringInput, entry: Any, key: str, file: str) -> None:
    """Put one entry of `points` to its model."""
    shape = "[[model_id, {...}], loss or null]" if given.segmented else "[{...}, loss or null]"
    if not isinstance(entry, list) or len(entry) != 2:
        raise InputError("not a point with its loss", file=file, key=key, found=entry, valid=shape)
    point, loss = entry
    name = ""
    if given.segmented:
        if not isinstance(point, list) or len(point) != 2:
            raise InputError("a point without its model's id", file=file, key=key, valid=shape)
        name, point = str(point[0]), point[1]
        if name not in given.models:
            raise InputError(
                "no search space has this model's id", file=file, key=key, found=name,
                valid=list(given.models),
            )  # fmt: skip
    if not isinstance(point, dict):
        raise InputError("not a point", file=file, key=key, found=point, valid=shape)
    if loss is not None and not is_number(loss):
        raise InputError(
            "not a loss", file=file, key=f"{key}[1]", found=loss, valid="a number or null"
        )
    model = given.models[name]
    model.points.append((fit(model.space, point, key, file), loss, loss is not None))


def fit(space: Space, point: Mapping[str, Any], key: str, file: str) -> Point:
    """`point` as the space writes it, or the nearest of its points where it lies outside.

    Points that somebody else chose may lie beyond the ends, off the steps or against a
    constraint; their losses still say something about the points nearby.

    Raises:
        InputErrors: it has other parameters, or a value that is like none of its parameter's.
    """
    try:
        return space.validate(point)
    except InputErrors as error:
        problems = error.errors
    try:
        near = space.from_unit(space.to_unit(point, absent=0.5))
    except (KeyError, ValueError, TypeError, OverflowError):
        near = None
    if near is None or not near.keys() <= point.keys():
        raise InputErrors([InputError(str(e), file=file, key=key) for e in problems])
    return near


def new_points(
    given: SteeringInput, num_points: int, max_points: int, optimizer: Any, seed: int
) -> list[Any]:
    """The output: for each model min(num_points, max_points - its points so far) new points.

    Fewer when its space holds no more; none of them is among its points so far.

    Raises:
        InputErrors: the optimiser's name or its options are wrong.
    """
    found: list[Any] = []
    for name, model in given.models.items():
        count = min(num_points, max_points - len(model.points))
        if count <= 0:
            continue
        for point in _ask(model, count, max_points, optimizer, _seed(seed, name)):
            found.append([model.id, point] if given.segmented else point)
    return found


def _seed(seed: int, name: str) -> int:
    # Models of one space must not all look at the same points first.
    return seed if not name else (seed + zlib.crc32(name.encode())) & 0x7FFFFFFF


def _ask(model: Model, count: int, budget: int, optimizer: Any, seed: int) -> list[Point]:
    search = create(optimizer, model.space, seed, budget=budget, key="--optimizer")
    for number, (point, loss, told) in enumerate(model.points):
        search.adopt(number, point)
        if told:
            search.tell(number, loss)
    first = len(model.points)
    return search.ask(range(first, first + count))


def steer(
    source: Path, target: Path, num_points: int, max_points: int, optimizer: Any, seed: int
) -> int:
    """Read `source`, write `target`; the number of new points.

    Raises:
        InputError: `source` cannot be read or is wrong; `target` is as it was.
        StorageError: `target` cannot be written.
    """
    try:
        text = source.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", file=str(source), key="--in"
        ) from None
    points = new_points(read_input(text, str(source)), num_points, max_points, optimizer, seed)
    write_atomic(target, json.dumps(points, allow_nan=False) + "\n")
    return len(points)
