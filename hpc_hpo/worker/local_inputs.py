"""A slice's inputs on its node: copied there by the first slice, found there by the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from hpc_hpo.errors import StorageError
from hpc_hpo.model import LocalInput, Shape, SliceRequest, TaskSpec
from hpc_hpo.worker.node_local import NodeCopies, NoRoom, local_folder, path_in

#: Below the study folder: archives that no node has room for.
UNPACKED = "unpacked"


class LocalInputs:
    """Gives slices the paths of their inputs on this node. One for each worker process."""

    def __init__(self) -> None:
        self._copies: dict[Path, NodeCopies] = {}
        self._said: set[str] = set()

    def bring(
        self,
        task: TaskSpec,
        request: SliceRequest,
        *,
        stopped: Callable[[], bool],
        say: Callable[[str], object],
    ) -> tuple[TaskSpec, SliceRequest]:
        """The task and request with the paths on this node.

        Args:
            stopped: true once the slice has to stop.
            say: leaves a line in the worker's log.

        The ranks of a trial of several may be on other nodes: each makes sure of its node's copy
        itself (keeper.py), at the path that is told here.

        Raises:
            Interrupted: the slice has to stop before that.
            StorageError: what was staged is not there, or is no longer what was staged.
        """
        segment = request.get("segment", {})
        shared, own = task.get("local", {}), segment.get("local", {})
        if not shared and not own:
            return task, request
        study, several = Path(request["dir"]), Shape(*request.get("shape", [])).ranks > 1
        root = local_folder(task.get("local_folder"), os.environ)
        paths: dict[str, str] = {}
        left: dict[str, LocalInput] = {}
        for name, local in {**shared, **own}.items():
            place = root or (study / UNPACKED if local["unpack"] else None)
            if place is None:
                self._say_once(say, f"input {name}: this site has no node-local folder")
                continue
            if several:
                left[name] = local
                paths[name] = str(path_in(place, local))
            else:
                found = self._copy(place, study, name, local, stopped, say)
                if found is not None:
                    paths[name] = str(found)
        self._release({**shared, **own})
        return self._with(task, request, paths, left, root or study / UNPACKED)

    def _with(
        self, task: TaskSpec, request: SliceRequest, paths: dict[str, str],
        left: dict[str, LocalInput], root: Path,
    ) -> tuple[TaskSpec, SliceRequest]:  # fmt: skip
        # Not sent to payloads again: the lists of files can be long.
        inputs = {**task.get("inputs", {}), **request.get("segment", {}).get("inputs", {}), **paths}
        changed = {k: v for k, v in task.items() if k != "local"}
        changed.update(inputs=inputs, local_folder=str(root))
        if left:
            changed["local"] = left
        asked = request.copy()
        if "segment" in request:
            told = {k: v for k, v in request["segment"].items() if k not in ("local", "inputs")}
            asked["segment"] = told  # type: ignore[typeddict-item]
        return cast(TaskSpec, changed), asked

    def _copy(
        self, place: Path, study: Path, name: str, local: LocalInput,
        stopped: Callable[[], bool], say: Callable[[str], object],
    ) -> Path | None:  # fmt: skip
        """A copy on this node; else an archive unpacked in the study folder, or None for what can
        be read where it is."""
        try:
            return self._at(place, stopped).use(name, local)
        except NoRoom as error:
            self._say_once(say, f"input {name} is not copied to this node: {error}")
        if not local["unpack"]:
            return None
        try:
            return self._at(study / UNPACKED, stopped).use(name, local)
        except NoRoom as error:
            raise StorageError(f"input {name} cannot be unpacked: {error}") from error

    def _at(self, root: Path, stopped: Callable[[], bool]) -> NodeCopies:
        copies = self._copies.setdefault(root, NodeCopies(root))
        copies.stopped = stopped
        return copies

    def _release(self, used: dict[str, LocalInput]) -> None:
        """What this slice does not use may be removed from the node."""
        for copies in self._copies.values():
            copies.release(but=[local["key"] for local in used.values()])

    def _say_once(self, say: Callable[[str], object], text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)


def environment_folder(task: TaskSpec) -> str | None:
    """The folder of the environment that payloads run in; None: the worker's own, or a
    container's."""
    name = task.get("environment")
    if name is None or task.get("container") is not None:
        return None
    return task.get("inputs", {}).get(name)
