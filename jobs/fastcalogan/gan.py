"""A Wasserstein GAN with gradient penalty on showers in voxels, one for each particle and slice.

As in FastCaloGAN (ATLAS, ATL-SOFT-PUB-2020-006): dense networks conditioned on the momentum,
voxels in units of the kinetic energy, the label ln(E / lowest) / ln(highest / lowest), several
steps of the critic for one of the generator. An *epoch* is one step of the generator with the
critic's steps before it, not a pass over the data.

The training is resumed exactly: its state holds both networks, both optimisers, and the state of
the one random generator that draws everything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chi2 import compare
from showers import kinetic
from voxels import Binning, DataError, Showers

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "swish": nn.SiLU, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU,
}  # fmt: skip
#: Of each momentum's events: trained on, used to choose the best epoch, and kept for the loss.
SPLIT = (0.6, 0.2, 0.2)
#: Generated events for each event they are compared with. With more of them the joined bins of
#: chi2.compare become so wide that a generator which only makes the mean event would pass.
GENERATED = 2
#: Events of one momentum: with fewer, as many bins are joined.
FEWEST = 200


@dataclass(frozen=True)
class Sample:
    """Events of all momenta, in the units that the networks see.

    Args:
        x: (n, voxels) energies over the kinetic energy, each voxel over its scale.
        label: (n, 1) in 0..1.
        total: (n,) all voxels' energy over the kinetic energy.
    """

    x: Tensor
    label: Tensor
    total: np.ndarray[Any, Any]

    def to(self, device: torch.device) -> Sample:
        """The same on another device."""
        return Sample(self.x.to(device), self.label.to(device), self.total)


@dataclass(frozen=True)
class Data:
    """All events of a tar, split in three.

    Args:
        scale: (voxels,) standard deviation of each voxel in the training sample, 1 where it is 0.
        sums: (voxels, layers + 1) what sums x to the layers' and the total energy, each over its
            own standard deviation.
    """

    train: Sample
    choose: Sample
    test: Sample
    scale: Tensor
    sums: Tensor


def prepare(showers: Showers, binning: Binning) -> Data:
    """Scale and split the events; always the same split.

    Raises:
        DataError: a momentum has too few events.
    """
    energy = kinetic(showers.pid, showers.momenta.astype(float))
    lowest, highest = np.log(energy[0]), np.log(energy[-1])
    parts: list[list[Any]] = [[], [], []]
    for value, voxels in zip(energy, showers.energies, strict=True):
        if len(voxels) < FEWEST:
            raise DataError(
                f"pid {showers.pid}, eta {showers.eta}: {len(voxels)} events at one momentum; "
                f"{FEWEST} are the least"
            )
        label = float((np.log(value) - lowest) / (highest - lowest)) if highest > lowest else 0.0
        order = np.random.default_rng(len(voxels)).permutation(len(voxels))
        ends = np.cumsum(np.array(SPLIT) * len(voxels)).round().astype(int)
        for part, rows in zip(parts, np.split(order, ends[:-1]), strict=True):
            part.append((voxels[rows] / value, label))
    scale = np.concatenate([x for x, _ in parts[0]]).std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    sums = np.zeros((binning.voxels, len(binning.layers) + 1))
    for number, columns in enumerate(binning.columns()):
        sums[columns, number] = 1.0
    sums[:, -1] = 1.0
    sums *= scale[:, None]
    train = np.concatenate([x for x, _ in parts[0]]) / scale
    spread = (train @ sums).std(axis=0)
    sums /= np.where(spread > 0, spread, 1.0)
    train_part, choose_part, test_part = (
        Sample(
            torch.tensor(np.concatenate([x for x, _ in part]) / scale, dtype=torch.float32),
            torch.tensor(
                np.concatenate([np.full((len(x), 1), label) for x, label in part]),
                dtype=torch.float32,
            ),
            np.concatenate([x.sum(axis=1, dtype=np.float64) for x, _ in part]),
        )
        for part in parts
    )
    return Data(
        train_part,
        choose_part,
        test_part,
        scale=torch.tensor(scale, dtype=torch.float32),
        sums=torch.tensor(sums, dtype=torch.float32),
    )


def dense(sizes: list[int], activation: str) -> nn.Sequential:
    """Layers of these sizes, the first being the input, with an activation between any two."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor,
                     mix: Tensor) -> Tensor:  # fmt: skip
    """Mean of (|d critic / d x| - 1)^2 between real and generated events.

    I. Gulrajani et al., Improved Training of Wasserstein GANs, arXiv:1704.00028.

    Args:
        critic: (n, voxels) -> (n, 1).
        real, fake: (n, voxels); mix: (n, 1) in 0..1, where between the two to look.
    """
    between = (mix * real + (1.0 - mix) * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((slope.norm(dim=1) - 1.0) ** 2).mean()


class Training:
    """The two networks of one GAN, and where their training is.

    Args:
        config: lr, beta, lambda, gdratio, batch, latent, width, activation: those of FastCaloGAN
            (learningRate, beta, lambda, gdratio, batchSize, latentDim in its binning.xml).
        data: the events; seed: of the weights and of all that is drawn.
    """

    def __init__(self, config: dict[str, Any], data: Data, seed: int, device: torch.device) -> None:
        self.data, self.seed, self.device = data, seed % 2**31, device
        self.train = data.train.to(device)
        self.sums, self.epoch = data.sums.to(device), 0
        self.latent, self.batch = int(config["latent"]), int(config["batch"])
        self.gdratio, self.penalty = int(config["gdratio"]), float(config["lambda"])
        voxels, width = data.train.x.shape[1], int(config["width"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.generator = dense(
                [self.latent + 1, width, 2 * width, 4 * width, voxels], config["activation"]
            )
            self.critic = dense(
                [voxels + data.sums.shape[1] + 1, 4 * width, 2 * width, width, 1],
                config["activation"],
            )
        # Starting at the mean shower spares the first thousand epochs.
        last = self.generator[-1]
        assert isinstance(last, nn.Linear)
        small = torch.Generator().manual_seed(self.seed)
        last.weight.data.copy_(0.01 * torch.randn(last.weight.shape, generator=small))
        last.bias.data.copy_(data.train.x.mean(dim=0))
        self.networks = {"generator": self.generator, "critic": self.critic}
        self.optimisers = {}
        for name, network in self.networks.items():
            network.to(device)
            self.optimisers[name] = torch.optim.Adam(
                network.parameters(), lr=float(config["lr"]), betas=(float(config["beta"]), 0.999)
            )
        # On the CPU whatever the device: its state is the same everywhere.
        self.random = torch.Generator().manual_seed(self.seed)
        self.distance = 0.0
        self.best_chi2, self.best_epoch = float("inf"), 0
        self.best = self._copy(self.generator)

    @staticmethod
    def _copy(network: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
        return {k: v.detach().cpu().numpy().copy() for k, v in network.state_dict().items()}

    def _noise(self, rows: int, random: torch.Generator) -> Tensor:
        return torch.randn(rows, self.latent, generator=random).to(self.device)

    def _generate(self, label: Tensor, random: torch.Generator) -> Tensor:
        """(n, voxels) of labels (n, 1); no energy is negative."""
        noise = self._noise(len(label), random)
        return torch.relu(self.generator(torch.cat([noise, label], dim=1)))

    def _criticise(self, x: Tensor, label: Tensor) -> Tensor:
        """(n, 1); the critic is also told the layers' and the total energies."""
        found: Tensor = self.critic(torch.cat([x, x @ self.sums, label], dim=1))
        return found

    def step(self) -> None:
        """One epoch: `gdratio` steps of the critic, one of the generator."""
        for _ in range(self.gdratio):
            rows = torch.randint(len(self.train.x), (self.batch,), generator=self.random)
            rows = rows.to(self.device)
            real, label = self.train.x[rows], self.train.label[rows]
            mix = torch.rand(self.batch, 1, generator=self.random).to(self.device)
            with torch.no_grad():
                fake = self._generate(label, self.random)
            distance = (self._criticise(real, label) - self._criticise(fake, label)).mean()
            critic = functools.partial(self._criticise, label=label)
            penalty = gradient_penalty(critic, real, fake, mix)
            self._descend("critic", self.penalty * penalty - distance)
            self.distance = float(distance.detach())
        rows = torch.randint(len(self.train.x), (self.batch,), generator=self.random)
        label = self.train.label[rows.to(self.device)]
        self._descend(
            "generator", -self._criticise(self._generate(label, self.random), label).mean()
        )
        self.epoch += 1

    def _descend(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def chi2(self, sample: Sample, stream: int) -> float:
        """chi2/ndf between a sample's and as many generated total energies, over all momenta.

        Args:
            stream: a number that makes the noise another one.

        Returns:
            The sum of the momenta's chi2 over the sum of their degrees of freedom; about 1 when
            both are of one distribution.
        """
        random = torch.Generator().manual_seed((self.seed * 1_000_003 + stream) % 2**63)
        scale = self.data.scale.to(self.device)
        chi2 = freedom = 0.0
        for value in torch.unique(sample.label):
            rows = (sample.label[:, 0] == value).numpy()
            label = torch.full((GENERATED * int(rows.sum()), 1), float(value))
            with torch.no_grad():
                made = (self._generate(label.to(self.device), random) * scale).sum(dim=1)
            one, bins = compare(sample.total[rows], made.double().cpu().numpy())
            chi2, freedom = chi2 + one, freedom + bins
        if not freedom:
            raise DataError("too few events to compare: every histogram has a single bin")
        return chi2 / freedom

    def choose(self) -> float:
        """chi2/ndf now, on events that are not trained on; the best generator is kept."""
        found = self.chi2(self.data.choose, self.epoch)
        if found < self.best_chi2:
            self.best_chi2, self.best_epoch = found, self.epoch
            self.best = self._copy(self.generator)
        return found

    def loss(self) -> float:
        """chi2/ndf of the best generator on events that neither trained nor chose it.

        The smallest of many chi2 is below what it stands for, so it is measured anew.
        """
        now = self._copy(self.generator)
        self._put(self.generator, self.best)
        found = self.chi2(self.data.test, -1)
        self._put(self.generator, now)
        return found

    @staticmethod
    def _put(network: nn.Module, arrays: dict[str, Any]) -> None:
        network.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on, as arrays and numbers."""
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "random": self.random.get_state().numpy(),
            "best": self.best,
            "best_chi2": self.best_chi2,
            "best_epoch": self.best_epoch,
            "distance": self.distance,
        }
        for name, network in self.networks.items():
            state[name] = self._copy(network)
            moments = self.optimisers[name].state_dict()["state"]
            state["adam_" + name] = {
                int(number): {k: v.detach().cpu().numpy() for k, v in values.items()}
                for number, values in moments.items()
            }
        return state

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of state()."""
        self.epoch = int(state["epoch"])
        self.random.set_state(torch.tensor(state["random"], dtype=torch.uint8))
        self.best, self.best_chi2 = dict(state["best"]), float(state["best_chi2"])
        self.best_epoch, self.distance = int(state["best_epoch"]), float(state["distance"])
        for name, network in self.networks.items():
            self._put(network, state[name])
            optimiser = self.optimisers[name]
            whole = optimiser.state_dict()
            whole["state"] = {
                int(number): {k: torch.tensor(v) for k, v in values.items()}
                for number, values in state["adam_" + name].items()
            }
            optimiser.load_state_dict(whole)
