"""A small network trained by PyTorch's DistributedDataParallel: gloo on CPUs, NCCL on GPUs.

torch is an extra of hpc_hpo: ``pip install 'hpc_hpo[torch]'``. Nothing is downloaded;
the data are made from a seed. The ranks find one another by MASTER_ADDR, MASTER_PORT, RANK and
WORLD_SIZE, which hpc_hpo sets, as torchrun does; without them it trains alone:

    python train.py --lr 0.01 --width 32 --batch 64

On SIGUSR1 the ranks agree on a step, rank 0 saves ckpt.pt, and all of them leave. Started again
in the same folder, the training goes on at that step.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

CHECKPOINT, OUTPUT, METRICS = Path("ckpt.pt"), Path("output.json"), Path("metrics.jsonl")
INPUTS, TRAIN, VALIDATION = 16, 4096, 1024

asked_to_stop = False


def note_signal(number: int, frame: Any) -> None:
    """Only note the signal: a step of all ranks must not be left in its middle."""
    global asked_to_stop
    asked_to_stop = True


def make_data(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and what a random network makes of them, (n, INPUTS) and (n, 1); n is all points."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(TRAIN + VALIDATION, INPUTS, generator=generator)
    first = torch.randn(INPUTS, 8, generator=generator) / INPUTS**0.5
    second = torch.randn(8, 1, generator=generator)
    return x, torch.tanh(2.0 * x @ first) @ second


class Training:
    """One rank's side of a training.

    Args:
        options: lr, width, batch (of all ranks together), epochs.
        seed: of the data, the first weights and the order of the points.
    """

    def __init__(self, options: argparse.Namespace, seed: int) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        # Each rank sees only its own GPU, so that it is number 0 on every rank.
        self.device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        if self.size > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        self.options, self.seed, self.step = options, seed, 0
        self.share = max(1, options.batch // self.size)
        self.steps_per_epoch = TRAIN // (self.share * self.size)
        self.steps = options.epochs * self.steps_per_epoch
        x, y = make_data(seed)
        self.x, self.y = x.to(self.device), y.to(self.device)
        torch.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Linear(INPUTS, options.width), nn.Tanh(), nn.Linear(options.width, 1)
        ).to(self.device)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=options.lr)
        self.model: nn.Module = self.net
        self.load()
        if self.size > 1:
            ids = [0] if self.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.net, device_ids=ids)

    def load(self) -> None:
        """Go on from the checkpoint, if there is one; every rank reads it."""
        if CHECKPOINT.exists():
            state = torch.load(CHECKPOINT, map_location=self.device, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.adam.load_state_dict(state["adam"])
            self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, on rank 0: all ranks hold the same state."""
        if self.rank == 0:
            state = {
                "net": self.net.state_dict(),
                "adam": self.adam.state_dict(),
                "step": self.step,
            }
            temporary = CHECKPOINT.with_suffix(".tmp")
            torch.save(state, temporary)
            os.replace(temporary, CHECKPOINT)

    def must_stop(self) -> bool:
        """Whether any rank has got the signal; all ranks get this answer in the same step."""
        if self.size == 1:
            return asked_to_stop
        flag = torch.tensor([float(asked_to_stop)], device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def take_step(self) -> None:
        """One step of Adam on this rank's share of a batch."""
        epoch, index = divmod(self.step, self.steps_per_epoch)
        # An order of its own for every epoch: a checkpoint needs no generator's state.
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(TRAIN, generator=generator)
        start = (index * self.size + self.rank) * self.share
        rows = order[start : start + self.share].to(self.device)
        self.adam.zero_grad()
        nn.functional.mse_loss(self.model(self.x[rows]), self.y[rows]).backward()
        self.adam.step()
        self.step += 1

    def run(self) -> bool:
        """Train; False when it was left for later, with a checkpoint."""
        while self.step < self.steps:
            self.take_step()
            if self.step % self.steps_per_epoch == 0:
                self.report()
                self.save()
            if self.must_stop() and self.step < self.steps:
                self.save()
                return False
        return True

    def validate(self) -> float:
        """Mean squared error on the points that are not trained on."""
        with torch.no_grad():
            error = nn.functional.mse_loss(self.net(self.x[TRAIN:]), self.y[TRAIN:])
        return float(error)

    def report(self) -> None:
        """Append a line to metrics.jsonl, on rank 0."""
        if self.rank == 0:
            line = json.dumps({"step": self.step // self.steps_per_epoch, "loss": self.validate()})
            with open(METRICS, "a") as stream:
                stream.write(line + "\n")


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="points of all ranks together")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    name = os.environ.get("HPC_HPO_CHECKPOINT_SIGNAL", "SIGUSR1")
    signal.signal(signal.Signals[name], note_signal)
    training = Training(options, int(os.environ.get("HPC_HPO_SEED", "0")) % 2**31)
    done = training.run()
    if done and training.rank == 0:
        temporary = OUTPUT.with_suffix(".tmp")
        temporary.write_text(json.dumps({"loss": training.validate()}))
        os.replace(temporary, OUTPUT)
    if training.size > 1:
        # The others must not be gone while rank 0 still writes.
        dist.barrier()
        # All is saved. To take PyTorch down in good order would take longer than the worker gives
        # a training that was asked to stop, 1 to 2 s, and now and then ends in an abort.
        os._exit(0)


if __name__ == "__main__":
    main()
