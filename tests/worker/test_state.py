"""States to HDF5 and back."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpc_hpo.errors import CheckpointError
from hpc_hpo.worker.state import read_state, write_state

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**62, max_value=2**70),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.binary(max_size=20),
)
KEYS = st.one_of(st.text(max_size=5), st.sampled_from(["a/b", ".", "..", "/", "", "0", "0~2"]))
VALUES = st.recursive(
    st.one_of(PLAIN, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(KEYS, st.integers(0, 3)), inner, max_size=3),
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def round_trip(state: dict[Any, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_state(Path(folder, "s.h5"), state)
        return read_state(Path(folder, "s.h5"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_that_a_state_comes_back_as_it_was(state: dict[str, Any]) -> None:
    assert same(round_trip(state), state)


def test_that_types_come_back_and_not_only_values() -> None:
    state = {
        "single": np.float32(1.5),
        "tuple": (1, [2.0, (True,)]),
        "huge": 10**6000,
        "generator": np.random.default_rng(3).bit_generator.state,
        "optimizer": {0: {"step": 3}, "0": {"m": np.zeros(2)}},
    }
    assert same(round_trip(state), state)


def test_that_arrays_can_be_found_by_name_with_any_hdf5_reader(tmp_path: Path) -> None:
    write_state(tmp_path / "s.h5", {"net": {"w": np.arange(3.0)}})
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["state/net/w"][()].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2, np.longdouble),
        np.zeros(2, np.clongdouble),
        np.longdouble(1),
        np.array([None, 1]),
        np.array(["text"]),
        np.array(["2024-01-01"], "M8[D]"),
        np.zeros(2, [("a", "f8")]),
        np.ma.masked_array([1.0], [True]),
        {1, 2},
        object(),
        {None: 1},
        1 + 2j,
    ],
    ids=lambda value: type(value).__name__ + "-" + str(getattr(value, "dtype", "")),
)
def test_that_what_would_not_come_back_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"\['layers'\]\[1\].*valid"):
        write_state(tmp_path / "s.h5", {"layers": [0, value]})


def test_that_a_state_that_contains_itself_is_refused(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    with pytest.raises(CheckpointError, match="contains itself"):
        write_state(tmp_path / "s.h5", state)


def test_that_a_file_of_something_else_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "s.h5").write_bytes(b"not hdf5")
    with pytest.raises(CheckpointError, match="not a readable state"):
        read_state(tmp_path / "s.h5")
