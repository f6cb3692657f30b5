"""Copies on a node's own disk: made once, whole, and removed only when nobody uses them."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import stat
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.errors import StorageError
from hpc_hpo.model import LocalInput
from hpc_hpo.worker.node_local import (
    RESERVE,
    Interrupted,
    NodeCopies,
    NoRoom,
    environment_of,
    local_folder,
)
from tests.worker.bench import Bench, wait_for


def local(folder: Path, files: dict[str, bytes], **how: bool) -> LocalInput:
    """An input of files that lie in `folder`."""
    listed = []
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        listed.append([name, str(path), len(data), hashlib.sha256(data).hexdigest()])
    key = hashlib.sha256(json.dumps([listed, how]).encode()).hexdigest()[:40]
    facts: dict[str, Any] = {"single": len(files) == 1, "unpack": False, "environment": False}
    return LocalInput(key=key, files=listed, **{**facts, **how})


def environment() -> bytes:
    """A packed environment whose script knows its place once conda-unpack has run."""
    script = (
        "import pathlib, sys\n"
        "home = pathlib.Path(__file__).resolve().parents[1]\n"
        "tool = home / 'bin' / 'tool'\n"
        "tool.write_text(tool.read_text().replace('/old/place', str(home)))\n"
    )
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in (
            ("bin/tool", "#!/bin/sh\necho /old/place\n"), ("bin/conda-unpack", script),
            ("conda-meta/history", ""), ("lib/a.txt", "a"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
    return raw.getvalue()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "node" / "hpc_hpo"


def test_that_a_file_and_a_folder_are_copied_read_only(shared: Path, root: Path) -> None:
    copies = NodeCopies(root)
    one = copies.use("one", local(shared, {"a.csv": b"1"}))
    many = copies.use("many", local(shared, {"d/b": b"2", "d/e/c": b"3"}))
    assert (one.name, one.read_bytes()) == ("a.csv", b"1")
    assert (many / "d" / "b").read_bytes() == b"2" and (many / "d" / "e" / "c").read_bytes() == b"3"
    assert not stat.S_IMODE(one.stat().st_mode) & 0o222
    assert not one.is_symlink() and root in one.parents


def test_that_an_environment_is_unpacked_and_told_its_place(shared: Path, root: Path) -> None:
    env = local(shared, {"env.tar.gz": environment()}, unpack=True, environment=True)
    home = NodeCopies(root).use("env", env)
    assert (home / "lib" / "a.txt").read_text() == "a"
    assert f"echo {home}\n" in (home / "bin" / "tool").read_text()
    assert not list(root.rglob("env.tar.gz")), "the archive itself is not kept"
    variables = environment_of(str(home), {"PATH": "/bin"})
    assert variables == {"PATH": f"{home}/bin:/bin", "CONDA_PREFIX": str(home)}


def _use(root: Path, spec: LocalInput, begun: Any, results: Any) -> None:
    begun.wait(20)
    path = NodeCopies(root).use("big", spec)
    results.put((path.stat().st_ino, path.read_bytes()[:3]))


def test_that_one_of_many_workers_copies_and_the_others_wait(shared: Path, root: Path) -> None:
    spec = local(shared, {"big": b"big" * 2_000_000})
    context = multiprocessing.get_context("fork")
    begun, results = context.Event(), context.Queue()
    workers = [context.Process(target=_use, args=(root, spec, begun, results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    begun.set()
    found = {results.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join(20)
    assert len(found) == 1, "all have the one copy"
    assert [p.name for p in root.iterdir() if p.is_dir()] == [spec["key"]]


def _hang(root: Path, spec: LocalInput) -> None:
    copies = NodeCopies(root)
    copies._check = lambda: time.sleep(60)  # type: ignore[method-assign]
    copies.use("big", spec)


def test_that_the_half_copy_of_a_dead_worker_is_made_again(shared: Path, root: Path) -> None:
    spec = local(shared, {"big": b"big" * 2_000_000})
    worker = multiprocessing.get_context("fork").Process(target=_hang, args=(root, spec))
    worker.start()
    half = root / f"{spec['key']}.tmp"
    wait_for(half.is_dir)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(10)
    assert half.is_dir() and not (root / spec["key"]).exists()
    path = NodeCopies(root).use("big", spec)
    assert path.read_bytes() == b"big" * 2_000_000 and not half.exists()


def test_that_a_copy_without_its_record_or_with_a_short_file_is_made_again(
    shared: Path, root: Path
) -> None:
    spec = local(shared, {"a": b"12345"})
    copies = NodeCopies(root)
    path = copies.use("a", spec)
    for damage in (lambda: (root / spec["key"] / "ready.json").unlink(), lambda: _shorten(path)):
        copies.release()
        damage()
        assert copies.use("a", spec).read_bytes() == b"12345"


def test_that_a_damaged_copy_that_others_use_is_passed_by(
    shared: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_hpo.worker.node_local.DAMAGED_S", 0.2)
    spec = local(shared, {"a": b"12345"})
    other = NodeCopies(root)
    _shorten(other.use("a", spec))
    with pytest.raises(NoRoom, match="damaged and in use"):
        NodeCopies(root).use("a", spec)


def _shorten(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"1")


def test_that_a_file_that_is_not_what_was_staged_is_refused_by_name(
    shared: Path, root: Path
) -> None:
    spec = local(shared, {"a": b"12345"})
    (shared / "a").write_bytes(b"12346")
    with pytest.raises(StorageError, match=r"input data: .*/a is not what was staged: 5 bytes"):
        NodeCopies(root).use("data", spec)
    assert not list(root.rglob("a"))
    (shared / "a").unlink()
    with pytest.raises(StorageError, match=r"input data: .*No such file"):
        NodeCopies(root).use("data", spec)


class Disk:
    """A node's disk of so many bytes beyond the reserve."""

    def __init__(self, root: Path, size: int) -> None:
        self.root, self.size = root, size

    def free(self, folder: Path) -> int:
        used = sum(p.stat().st_size for p in self.root.glob("*/data/**/*") if p.is_file())
        return self.size + RESERVE - used


def test_that_room_is_made_by_removing_what_was_not_used_longest(shared: Path, root: Path) -> None:
    disk = Disk(root, 100)
    specs = {name: local(shared, {name: name.encode() * 40}) for name in "abcd"}
    copies = NodeCopies(root, free=disk.free)
    for age, name in enumerate("ab"):
        copies.use(name, specs[name])
        os.utime(root / f"{specs[name]['key']}.lock", (1000 + age, 1000 + age))
    copies.use("a", specs["a"])  # used once more, after b
    copies.release()
    copies.use("c", specs["c"])
    here = {name for name in "abcd" if (root / specs[name]["key"]).is_dir()}
    assert here == {"a", "c"}


def test_that_what_is_in_use_is_never_removed(shared: Path, root: Path) -> None:
    disk = Disk(root, 100)
    specs = {name: local(shared, {name: name.encode() * 40}) for name in "abc"}
    other = NodeCopies(root, free=disk.free)
    held = [other.use(name, specs[name]) for name in "ab"]
    with pytest.raises(NoRoom, match="40 bytes are needed"):
        NodeCopies(root, free=disk.free).use("c", specs["c"])
    assert all(path.exists() for path in held)
    other.release(but=[specs["b"]["key"]])
    NodeCopies(root, free=disk.free).use("c", specs["c"])
    assert not held[0].exists() and held[1].exists()


def test_that_a_slice_that_has_to_stop_does_not_wait_for_its_inputs(
    shared: Path, root: Path
) -> None:
    spec = local(shared, {"a": b"1"})
    with pytest.raises(Interrupted):
        NodeCopies(root, stopped=lambda: True).use("a", spec)
    assert not list(root.glob("*/data"))


def test_that_a_folder_that_cannot_be_made_has_no_room(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoRoom):
        NodeCopies(tmp_path / "file" / "below").use("a", local(shared, {"a": b"1"}))


def test_that_the_site_s_folder_is_read_on_the_node() -> None:
    assert local_folder("/mnt/bb/$USER", {"USER": "me"}) == Path("/mnt/bb/me/hpc_hpo")
    assert local_folder("/mnt", {"HPC_HPO_NODE_LOCAL": "/tmp/7"}) == Path("/tmp/7/hpc_hpo")
    assert local_folder(None, {"USER": "me"}) is None


def test_that_slices_get_the_path_on_their_node(bench: Bench, shared: Path, root: Path) -> None:
    bench.task["inputs"] = {"data": str(shared / "a"), "other": "/d"}
    bench.task["local"] = {"data": local(shared, {"a": b"abc"})}
    bench.task["local_folder"] = str(root.parent)
    bench.objective("""
        def train(config, trial):
            print(trial.inputs["data"])
            return float(len(open(trial.inputs["data"]).read()))
    """)
    worker = bench.worker()
    for number in (1, 2):
        outcome = bench.run(worker, slice=number)
        assert outcome["end"] == "completed" and outcome["loss"] == 3.0, outcome
    log = next((bench.dir / "logs").glob("w-*.log")).read_text()
    assert log.splitlines() == [str(p) for p in root.glob("*/data/a")] * 2


def test_that_a_segment_s_own_inputs_are_local_too(bench: Bench, shared: Path, root: Path) -> None:
    bench.task["inputs"] = {"data": "/shared"}
    bench.task["local_folder"] = str(root.parent)
    bench.objective("""
        def train(config, trial):
            assert trial.inputs["data"] == "/shared"
            return float(len(open(trial.inputs["own"]).read()))
    """)
    segment = {
        "name": "s", "values": {}, "inputs": {"own": str(shared / "a")},
        "local": {"own": local(shared, {"a": b"abcd"})},
    }  # fmt: skip
    assert bench.run(segment=segment)["loss"] == 4.0
    assert list(root.glob("*/data/a"))


def test_that_without_room_on_the_node_the_shared_file_is_read_and_an_archive_unpacked_there(
    bench: Bench, shared: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder can be made below this")
    bench.task["inputs"] = {"data": str(shared / "a"), "env": str(shared / "env.tar.gz")}
    bench.task["local"] = {
        "data": local(shared, {"a": b"abc"}),
        "env": local(shared, {"env.tar.gz": environment()}, unpack=True, environment=True),
    }
    bench.task["local_folder"] = str(tmp_path / "file")
    bench.command(
        "import os, pathlib, sys\n"
        "assert pathlib.Path(os.environ['HPC_HPO_INPUT_DATA']).read_text() == 'abc'\n"
        "assert pathlib.Path(os.environ['HPC_HPO_INPUT_ENV'], 'lib', 'a.txt').exists()\n"
        "print('loss=1.5')\n",
        loss={"stdout": "loss=(.*)"},
    )
    outcome = bench.run()
    assert outcome["loss"] == 1.5, outcome
    assert list((bench.dir / "unpacked").glob("*/data/lib/a.txt"))
    log = next((bench.dir / "logs").glob("w-*.log")).read_text()
    assert "input data is not copied to this node" in log


def test_that_a_command_runs_inside_its_environment(bench: Bench, shared: Path, root: Path) -> None:
    bench.task["inputs"] = {"env": str(shared / "env.tar.gz")}
    bench.task["local"] = {
        "env": local(shared, {"env.tar.gz": environment()}, unpack=True, environment=True)
    }
    bench.task.update(local_folder=str(root.parent), environment="env")
    bench.command("", loss={"stdout": "loss=(.*)"})
    bench.task["argv"] = ["sh", "-c", "tool; echo $CONDA_PREFIX; echo loss=$(tool | wc -l)"]
    outcome = bench.run()
    assert outcome["loss"] == 1.0, outcome
    log = next((bench.dir / "logs").glob("w-*.log")).read_text()
    assert log.count(str(next(root.glob("*/data")))) == 2


def test_that_a_changed_input_fails_the_slice_without_an_attempt(
    bench: Bench, shared: Path, root: Path
) -> None:
    bench.task["inputs"] = {"data": str(shared / "a")}
    bench.task["local"] = {"data": local(shared, {"a": b"abc"})}
    bench.task["local_folder"] = str(root.parent)
    bench.objective("def train(config, trial):\n    return 1.0\n")
    (shared / "a").write_bytes(b"abd")
    outcome = bench.run()
    assert outcome["end"] == "failed" and outcome["error"]["transient"]
    assert "input data" in outcome["error"]["message"]
