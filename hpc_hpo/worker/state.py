"""A state (nested dicts, lists, tuples, plain values, numpy arrays) as one HDF5 file and back.

Arrays are datasets named by their keys under ``/state``; everything else is one JSON document in
the dataset ``/tree`` that refers to them, so that values come back with the types they had.
Types whose bytes mean different things on different machines are refused.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpc_hpo.errors import CheckpointError

_LAYOUT = 1
#: Larger integers are written in hexadecimal: Python refuses decimal conversions of more than
#: 4,300 digits, and other JSON readers stop at 64 bits.
_JSON_INT = 2**63
_VALID = (
    "dict (keys str or int), list, tuple, str, bytes, bool, int, float, None, and numpy arrays "
    "and scalars of bool, int8-64, uint8-64, float16-64, complex64-128"
)


def _name(key: str | int) -> str:
    """A key as an HDF5 link name, where "/" and "." have meanings of their own."""
    text = str(key).encode("ascii", "backslashreplace").decode()
    text = text.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    if not text.strip("."):
        return text.replace(".", "%2E") or "%"
    return text


class _Writer:
    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def _refuse(self, where: str, value: Any, remedy: str = "") -> CheckpointError:
        kind = type(value).__name__
        if isinstance(value, (np.ndarray, np.generic)):
            kind += f" of {value.dtype}"
        return CheckpointError(
            f"state{where}: a {kind} cannot be checkpointed{remedy}; valid: {_VALID}"
        )

    def _array(self, value: np.ndarray[Any, Any] | np.generic, path: str, where: str) -> str:
        if value.dtype.char in "gG":
            raise self._refuse(
                where, value, " (its bytes differ between machines): convert it to float64"
            )
        if value.dtype.kind not in "biufc":
            raise self._refuse(where, value)
        self._file.create_dataset(path, data=value)
        return path

    def encode(self, value: Any, path: str, where: str) -> Any:
        """The JSON form of `value`; its arrays are written under the link `path`."""
        if isinstance(value, np.generic):
            return {"scalar": self._array(value, path, where)}
        if isinstance(value, np.ndarray):
            if type(value) not in (np.ndarray, np.memmap):
                raise self._refuse(where, value, ": convert it with numpy.asarray")
            return {"array": self._array(value, path, where)}
        if value is None or value is True or value is False or type(value) is str:
            return value
        if type(value) is int:
            return value if -_JSON_INT <= value < _JSON_INT else {"int": hex(value)}
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if type(value) is bytes:
            return {"bytes": self._array(np.frombuffer(value, np.uint8), path, where)}
        if isinstance(value, dict):
            return {"dict": self._items(value, path, where)}
        if type(value) in (list, tuple):
            items = [self.encode(v, f"{path}/{i}", f"{where}[{i}]") for i, v in enumerate(value)]
            return items if type(value) is list else {"tuple": items}
        raise self._refuse(where, value)

    def _items(self, value: dict[Any, Any], path: str, where: str) -> list[list[Any]]:
        items = []
        used: set[str] = set()
        for key, item in value.items():
            if type(key) not in (str, int):
                raise CheckpointError(
                    f"state{where}: the key {key!r} is a {type(key).__name__}; valid: str or int"
                )
            # The keys 0 and "0" of one dict would have the same name.
            name = stem = _name(key)
            count = 1
            while name in used:
                count += 1
                name = f"{stem}~{count}"
            used.add(name)
            form = self.encode(key, path, where)
            items.append([form, self.encode(item, f"{path}/{name}", f"{where}[{key!r}]")])
        return items


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state to a new HDF5 file.

    Raises:
        CheckpointError: a key or value that would not come back as it was; the text names it.
        OSError: the file cannot be written (errno ENOSPC when the disk is full).
    """
    if not isinstance(state, dict):
        raise CheckpointError(f"state: a {type(state).__name__} was given; valid: a dict")
    # Locks of HDF5 fail on some cluster file systems; nobody else knows this file's name yet.
    with h5py.File(path, "w", locking=False) as file:
        try:
            tree = _Writer(file).encode(state, "/state", "")
        except RecursionError:
            raise CheckpointError(
                "state: nested too deeply, or it contains itself; valid: " + _VALID
            ) from None
        file.attrs["layout"] = _LAYOUT
        text = json.dumps(tree, allow_nan=False)
        file.create_dataset("tree", data=np.frombuffer(text.encode(), np.uint8))


def _decode(form: Any, file: h5py.File) -> Any:
    if isinstance(form, list):
        return [_decode(item, file) for item in form]
    if not isinstance(form, dict):
        return form
    ((tag, content),) = form.items()
    if tag == "dict":
        return {_decode(key, file): _decode(value, file) for key, value in content}
    if tag == "tuple":
        return tuple(_decode(item, file) for item in content)
    if tag == "int":
        return int(content, 16)
    if tag == "float":
        return float(content)
    data = file[content][()]
    if tag == "bytes":
        return data.tobytes()
    return np.asarray(data, file[content].dtype) if tag == "array" else data


def read_state(path: Path) -> dict[str, Any]:
    """The state of a file that write_state made.

    Raises:
        CheckpointError: the file is not such a file.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            layout = int(file.attrs["layout"])
            if layout != _LAYOUT:
                raise CheckpointError(f"{path}: layout {layout}; this version reads {_LAYOUT}")
            state = _decode(json.loads(file["tree"][()].tobytes()), file)
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable state: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: does not hold a dict")
    return state
