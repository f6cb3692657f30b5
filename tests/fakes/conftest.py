"""Clusters for the tests of the fakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.lsf import FakeLsf

MakeLsf = Callable[..., FakeLsf]


@pytest.fixture
def make_lsf(tmp_path: Path) -> Iterator[MakeLsf]:
    """Start a cluster with the options given; it is gone after the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> FakeLsf:
            fast = {"speed": 120, "grace": 0.15, **options}
            return stack.enter_context(FakeLsf(tmp_path / "lsf", **fast))

        yield make


@pytest.fixture
def lsf(make_lsf: MakeLsf) -> FakeLsf:
    """A Summit of four nodes, a minute of whose clock is half a second."""
    return make_lsf()


@pytest.fixture(scope="module")
def idle_lsf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLsf]:
    """A Summit shared by tests whose submissions are all refused."""
    with FakeLsf(tmp_path_factory.mktemp("idle") / "lsf") as shared:
        yield shared
