"""The PyTorch job on two ranks with gloo, started as its launcher would start them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.jobs.scripts import require_torch

require_torch()
pytestmark = [pytest.mark.slow]

TRAIN = Path(__file__).resolve().parents[2] / "jobs" / "ddp" / "train.py"


def start_ranks(folder: Path, size: int = 2) -> list[subprocess.Popen[bytes]]:
    """All ranks of a training in `folder`."""
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    arguments = ["--lr", "0.01", "--width", "8", "--batch", "64", "--epochs", "12"]
    common = {
        "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "HPC_HPO_SEED": "7", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, str(TRAIN), *arguments],
            cwd=folder,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(size)
    ]


def finish(ranks: list[subprocess.Popen[bytes]]) -> None:
    """Wait until all ranks have ended well."""
    assert [rank.wait(timeout=100) for rank in ranks] == [0] * len(ranks)


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for_epoch(folder: Path, ranks: list[subprocess.Popen[bytes]]) -> None:
    """Return in the midst of the training."""
    end = time.monotonic() + 100
    while len(metrics(folder)) < 3:
        assert time.monotonic() < end and all(rank.poll() is None for rank in ranks)
        time.sleep(0.02)


def test_that_a_training_that_one_rank_is_asked_to_leave_ends_as_the_very_same(
    tmp_path: Path,
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(start_ranks(whole))
    ranks = start_ranks(parts)
    wait_for_epoch(parts, ranks)
    ranks[1].send_signal(signal.SIGUSR1)  # the others learn it from this one
    finish(ranks)
    assert not (parts / "output.json").exists()
    assert (parts / "ckpt.pt").exists()
    finish(start_ranks(parts))
    assert (parts / "output.json").read_text() == (whole / "output.json").read_text()
    assert metrics(parts) == metrics(whole)
    assert [line["step"] for line in metrics(whole)] == list(range(1, 13))


def test_that_it_trains_alone_and_learns(tmp_path: Path) -> None:
    finish(start_ranks(tmp_path, size=1))
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert losses[-1] < 0.2 * losses[0]
    assert json.loads((tmp_path / "output.json").read_text())["loss"] == losses[-1]
