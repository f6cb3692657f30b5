"""Showers in a simplified ATLAS barrel calorimeter, by published parametrisations.

**Electrons.** The longitudinal profile is a gamma distribution whose two parameters fluctuate from
shower to shower, the radial one has a core and a tail: G. Grindhammer, S. Peters, hep-ex/0001020
(their homogeneous calorimeter; the constants as in Geant4, examples/extended/parameterisations,
ExGflashHomoShowerTuning). Lead and liquid argon are replaced by one mixture, as that paper does.

**Photons** travel a mean of 9/7 radiation lengths and become two electrons that share the energy
by the pair production spectrum (Particle Data Group, Passage of particles through matter).

**Pions** start after a mean of one interaction length and deposit by the two components of
R. Bock et al., Nucl. Instrum. Meth. 186 (1981) 533, with the constants in Y. Kulchitsky,
V. Vinogradov, hep-ex/9903019.

What has no source, because it is a simplification of ours, says "assumed". It is a stand-in for
Geant4, with the right trends, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaincinv, gammainc

from voxels import Binning, Layer

Array = np.ndarray[Any, Any]
Random = np.random.Generator

#: MeV: Particle Data Group, R. L. Workman et al., Prog. Theor. Exp. Phys. 2022, 083C01.
MASSES = {22: 0.0, 11: 0.51099895, 211: 139.57039}
SCALE_ENERGY = 21.2052  # MeV: of the Moliere radius; PDG, Passage of particles, table of symbols


@dataclass(frozen=True)
class Medium:
    """A material.

    Args:
        z: mean charge number; density: g/cm3; x0: radiation length, g/cm2;
        interaction: nuclear interaction length, g/cm2; critical: critical energy, MeV.
    """

    z: float
    density: float
    x0: float
    interaction: float
    critical: float

    @property
    def moliere(self) -> float:
        """The Moliere radius in mm."""
        return 10.0 * self.x0 / self.density * SCALE_ENERGY / self.critical


# PDG, Atomic and nuclear properties of materials.
LEAD = Medium(82.0, 11.35, 6.37, 199.6, 7.43)
ARGON = Medium(18.0, 1.396, 19.55, 119.7, 32.84)
IRON = Medium(26.0, 7.874, 13.84, 132.1, 21.68)


def mix(parts: list[tuple[Medium, float]]) -> Medium:
    """What layers of several media are like on average (hep-ex/0001020, section 3.1).

    Args:
        parts: each with its thickness in any unit.
    """
    mass = [medium.density * thickness for medium, thickness in parts]
    shares = [m / sum(mass) for m in mass]
    pairs = [(share, medium) for share, (medium, _) in zip(shares, parts, strict=True)]
    x0 = 1.0 / sum(w / medium.x0 for w, medium in pairs)
    return Medium(
        z=sum(w * medium.z for w, medium in pairs),
        density=sum(mass) / sum(thickness for _, thickness in parts),
        x0=x0,
        interaction=1.0 / sum(w / medium.interaction for w, medium in pairs),
        critical=x0 * sum(w * medium.critical / medium.x0 for w, medium in pairs),
    )


#: 1.53 mm of lead and two gaps of 2.1 mm (ATLAS, JINST 3 (2008) S08003); no steel or glue.
CALORIMETER = mix([(LEAD, 1.53), (ARGON, 4.2)])

#: Thickness at eta 0. In radiation lengths: 11 mm of argon in the presampler, then 4.3, 16 and 2;
#: in interaction lengths the tiles' 1.5, 4.1 and 1.8 (ATLAS, JINST 3 (2008) S08003).
ELECTROMAGNETIC = {0: 1.1 * ARGON.density / ARGON.x0, 1: 4.3, 2: 16.0, 3: 2.0}
TILES = {12: 1.5, 13: 4.1, 14: 1.8}
#: Radiation lengths ahead of the presampler, whose energy is lost (assumed: coil and cryostat).
AHEAD_OF_ALL = 1.0
ETA_MAX = 130  # hundredths: the barrel's end, nearly

LAYERS = (*ELECTROMAGNETIC, *TILES)
# Both depths at the borders of the layers, at eta 0. Within the mixture, and within iron, one
# length is a fixed multiple of the other.
_STEPS_X0 = [AHEAD_OF_ALL, *ELECTROMAGNETIC.values()]
_IN_TILES = [length * IRON.interaction / IRON.x0 for length in TILES.values()]
DEPTH_X0 = np.cumsum([*_STEPS_X0, *_IN_TILES])
DEPTH_INTERACTION = np.cumsum(
    [step * CALORIMETER.x0 / CALORIMETER.interaction for step in _STEPS_X0] + [*TILES.values()]
)

#: Stochastic terms of the energy resolution, at 1 GeV: 0.10 (ATLAS, S08003) for electrons and
#: photons; 0.5 for the hadronic component (assumed, near ATLAS's 0.52 for pions).
SAMPLING, SAMPLING_HADRONIC = 0.10, 0.50
#: e/h: 1.74 of the liquid argon (hep-ex/9911033), 1.36 of the tiles (JINR E1-2002-13).
E_OVER_H = {**dict.fromkeys(ELECTROMAGNETIC, 1.74), **dict.fromkeys(TILES, 1.36)}
#: The mean share of neutral pions' energy is 1 - E^(POWER - 1), E in GeV: T. Gabriel et al., Nucl.
#: Instrum. Meth. A338 (1994) 336; PDG, Particle detectors at accelerators, hadronic calorimeters.
POWER = 0.82
#: It fluctuates as a beta distribution with this sum of its two parameters (assumed: a spread of
#: 0.17 about 0.5), and so does, with it, the weight of Bock's first component.
SHARE_SUM = 8.0
#: Radius that holds half of a hadronic component, in interaction lengths (assumed).
HADRONIC_RADIUS = 0.25
#: Below this the parametrisation of electrons, made for more than 1 GeV, has no spread that makes
#: sense; it is used as if ln(E / critical energy) were this (assumed).
LOWEST_LOG_Y = 2.0


@dataclass(frozen=True)
class Profile:
    """The gamma distributions of n electromagnetic showers; depths in radiation lengths.

    Args:
        maximum: (n,) depth of the maximum, from the start of the shower.
        alpha: (n,) shape, over 1.
    """

    maximum: Array
    alpha: Array

    @property
    def beta(self) -> Array:
        """(n,) scale: the maximum of a gamma distribution lies at (alpha - 1) / beta."""
        return (self.alpha - 1.0) / self.maximum


def log_y(energy: Array) -> Array:
    """ln(E / critical energy) of energies in GeV, not below LOWEST_LOG_Y."""
    return np.asarray(np.maximum(np.log(energy * 1e3 / CALORIMETER.critical), LOWEST_LOG_Y))


def draw_profiles(energy: Array, rng: Random) -> Profile:
    """Profiles of electrons of energies (n,) in GeV (hep-ex/0001020, appendix A)."""
    ln_y = log_y(energy)
    first, second = rng.standard_normal((2, len(energy)))
    rho = 0.705 - 0.023 * ln_y
    same, apart = np.sqrt((1.0 + rho) / 2.0), np.sqrt((1.0 - rho) / 2.0)
    ln_maximum = np.log(ln_y - 0.812) + (same * first + apart * second) / (-1.4 + 1.26 * ln_y)
    ln_alpha = np.log(0.81 + (0.458 + 2.26 / CALORIMETER.z) * ln_y)
    ln_alpha = ln_alpha + (same * first - apart * second) / (-0.58 + 0.86 * ln_y)
    # A shape of 1 or less has no maximum; Geant4 cuts there as well.
    return Profile(np.exp(ln_maximum), np.maximum(np.exp(ln_alpha), 1.1))


def draw_pair_shares(count: int, rng: Random) -> Array:
    """Shares (count,) of a photon's energy that one of the pair gets: 1 - 4/3 x (1 - x)."""
    shares = np.empty(count)
    open_rows = np.arange(count)
    while len(open_rows):
        tried = rng.random(len(open_rows))
        taken = rng.random(len(open_rows)) <= 1.0 - 4.0 / 3.0 * tried * (1.0 - tried)
        shares[open_rows[taken]] = tried[taken]
        open_rows = open_rows[~taken]
    return shares


def radial_parts(energy: Array, tau: Array) -> tuple[Array, Array, Array]:
    """Core and tail radius in Moliere radii, and the core's weight (hep-ex/0001020, appendix A).

    Args:
        energy: (n, 1) in GeV; tau: (n, layers), depth over the depth of the maximum.
    """
    z, ln_e = CALORIMETER.z, np.log(energy)
    core = 0.0251 + 0.00319 * ln_e + (0.1162 - 0.000381 * z) * tau
    rise = np.exp(-2.59 * (tau - 0.645)) + np.exp((0.3585 + 0.0412 * ln_e) * (tau - 0.645))
    tail = (0.659 - 0.00309 * z) * rise
    step = (0.401 + 0.00187 * z - tau) / (1.313 - 0.0686 * ln_e)
    weight = (2.632 - 0.00094 * z) * np.exp(step - np.exp(step))
    return np.maximum(core, 1e-3), tail, np.clip(weight, 0.0, 1.0)


def _within(radius: Array, scale: Array) -> Array:
    """The share of 2 r R^2 / (r^2 + R^2)^2 that lies within a radius."""
    return np.asarray(radius**2 / (radius**2 + scale**2))


def scatter(energy: Array, within: Array, spots: Array, layer: Layer, rng: Random) -> Array:
    """Energies (n, voxels) of one layer: equal spots that fall into its voxels by chance.

    Args:
        energy: (n,) of the whole layer, in any unit, 0 or more.
        within: (n, borders) share of the energy within each of the layer's r_edges.
        spots: (n,) how many spots are expected; at least one is thrown.
    """
    sectors = np.array(layer.sectors)
    rings = np.diff(within, axis=1) / sectors
    chance = np.repeat(rings, sectors, axis=1)
    outside = np.clip(1.0 - chance.sum(axis=1, keepdims=True), 0.0, 1.0)
    chance = np.hstack([chance, outside])
    thrown = np.maximum(rng.poisson(spots), 1)
    hits = rng.multinomial(thrown, chance / chance.sum(axis=1, keepdims=True))
    return np.asarray((energy / thrown)[:, None] * hits[:, :-1])


def _sampled(energy: Array, term: float, rng: Random) -> Array:
    """Energies in GeV with a sampling fluctuation of term * sqrt(E): a gamma distribution."""
    shape = energy / term**2
    return np.where(shape > 1e-9, rng.gamma(np.maximum(shape, 1e-9)) * term**2, 0.0)


def electrons(energy: Array, start: Array, stretch: Array, binning: Binning, rng: Random) -> Array:
    """Energies in GeV (n, voxels) of electromagnetic showers.

    Args:
        energy: (n,) in GeV; start: (n,) depth at which they start, radiation lengths;
        stretch: (n,) how much longer the way through a layer is than at eta 0.
    """
    profile = draw_profiles(energy, rng)
    scaled = np.maximum(np.outer(stretch, DEPTH_X0) - start[:, None], 0.0) * profile.beta[:, None]
    shares = np.diff(gammainc(profile.alpha[:, None], scaled), axis=1)
    # Mean depth of what a layer gets, as the integral of t f(t) is a gamma distribution again.
    moments = np.diff(gammainc(profile.alpha[:, None] + 1.0, scaled), axis=1)
    mean = moments / np.maximum(shares, 1e-12) * (profile.alpha / profile.beta)[:, None]
    tau = np.clip(mean / profile.maximum[:, None], 0.0, 10.0)
    core, tail, weight = radial_parts(energy[:, None], tau)
    total_spots = 93.0 * math.log(CALORIMETER.z) * energy**0.876

    def within(number: int, radii: Array) -> Array:
        r = radii[None, :] / CALORIMETER.moliere
        p = weight[:, number, None]
        return np.asarray(
            p * _within(r, core[:, number, None]) + (1.0 - p) * _within(r, tail[:, number, None])
        )

    return _fill(energy[:, None] * shares, SAMPLING, total_spots, within, binning, rng)


def _fill(
    deposits: Array,
    term: float,
    spots: Array,
    within: Callable[[int, Array], Array],
    binning: Binning,
    rng: Random,
) -> Array:
    """Deposits (n, layers) of a component, sampled and scattered over the voxels (n, voxels)."""
    shares = deposits / np.maximum(deposits.sum(axis=1, keepdims=True), 1e-12)
    found = np.zeros((len(deposits), binning.voxels))
    for layer, columns in zip(binning.layers, binning.columns(), strict=True):
        number = LAYERS.index(layer.id)
        seen = _sampled(deposits[:, number], term, rng)
        radial = within(number, np.array(layer.r_edges))
        found[:, columns] = scatter(seen, radial, spots * shares[:, number], layer, rng)
    return found


def photons(energy: Array, stretch: Array, binning: Binning, rng: Random) -> Array:
    """Energies in GeV (n, voxels) of photons of energies (n,) in GeV."""
    start = rng.exponential(9.0 / 7.0, len(energy))
    share = draw_pair_shares(len(energy), rng)
    return sum(
        (
            electrons(np.maximum(energy * part, 1e-3), start, stretch, binning, rng)
            for part in (share, 1.0 - share)
        ),
        np.zeros((len(energy), binning.voxels)),
    )


def bock(energy: Array) -> tuple[Array, float, float, Array]:
    """(a, b, d, w) of energies in GeV: Bock's form with the constants in hep-ex/9903019.

    The energy deposited at x from the start is proportional to
    w (x / X0)^(a - 1) exp(-b x / X0) + (1 - w) (x / l)^(a - 1) exp(-d x / l).
    Below 1 GeV, where it was never fitted, the values of 1 GeV; w is kept within 0 and 1.
    """
    ln_e = np.log(np.maximum(energy, 1.0))
    return 0.786 + 0.427 * ln_e, 0.29, 0.978, np.clip(1.032 - 0.159 * ln_e, 0.0, 1.0)


def first_component(energy: Array) -> Array:
    """The mean share of Bock's first component in the energy: a ratio of integrals."""
    a, b, d, w = bock(energy)
    first = w * b**-a * CALORIMETER.x0
    second = (1.0 - w) * d**-a * CALORIMETER.interaction
    return np.asarray(first / (first + second))


def neutral_share(energy: Array) -> Array:
    """The mean share of the energy that goes into neutral pions, of energies in GeV."""
    return 1.0 - np.maximum(energy, 1.0) ** (POWER - 1.0)


def _fluctuated(mean: Array, quantile: Array) -> Array:
    mean = np.clip(mean, 0.01, 0.99)
    return np.asarray(betaincinv(mean * SHARE_SUM, (1.0 - mean) * SHARE_SUM, quantile))


def pions(energy: Array, stretch: Array, binning: Binning, rng: Random) -> Array:
    """Energies in GeV (n, voxels) of charged pions of energies (n,) in GeV."""
    quantile = rng.random(len(energy))
    share = _fluctuated(first_component(energy), quantile)[:, None]
    neutral = _fluctuated(neutral_share(energy), quantile)[:, None]
    # What is not in neutral pions is seen e/h times more weakly, in each layer its own way.
    seen = neutral + (1.0 - neutral) / np.array([E_OVER_H[layer] for layer in LAYERS])
    start = rng.exponential(1.0, len(energy))
    past = [
        np.maximum(np.outer(stretch, depth) - (stretch * where)[:, None], 0.0)
        # From the front to the first border both depths grow from 0.
        for depth, where in (
            (DEPTH_X0, np.interp(start / stretch, np.r_[0, DEPTH_INTERACTION], np.r_[0, DEPTH_X0])),
            (DEPTH_INTERACTION, start / stretch),
        )
    ]
    a, b, d, _ = bock(energy)
    first = share * np.diff(gammainc(a[:, None], b * past[0]), axis=1) * seen
    second = (1.0 - share) * np.diff(gammainc(a[:, None], d * past[1]), axis=1) * seen

    def narrow(number: int, radii: Array) -> Array:
        # Half of it within half a Moliere radius (assumed).
        return _within(radii[None, :], np.full((len(energy), 1), 0.5 * CALORIMETER.moliere))

    def wide(number: int, radii: Array) -> Array:
        medium = IRON if LAYERS[number] in TILES else CALORIMETER
        half = HADRONIC_RADIUS * 10.0 * medium.interaction / medium.density
        return _within(radii[None, :], np.full((len(energy), 1), half))

    spots = 93.0 * math.log(CALORIMETER.z) * (energy * share[:, 0]) ** 0.876
    few = energy * (1.0 - share[:, 0]) / SAMPLING_HADRONIC**2
    scaled = energy[:, None]
    return _fill(scaled * first, SAMPLING, spots, narrow, binning, rng) + _fill(
        scaled * second, SAMPLING_HADRONIC, few, wide, binning, rng
    )


def kinetic(pid: int, momentum: Array) -> Array:
    """Kinetic energy of a momentum, both in MeV: what a calorimeter is meant to see."""
    mass = MASSES[pid]
    return np.sqrt(momentum * momentum + mass * mass) - mass


def generate(
    binning: Binning, eta: tuple[int, int], momentum: int, events: int, rng: Random
) -> Array:
    """Showers of one particle, (events, 2 + voxels): phi, eta, energies in MeV.

    Args:
        binning: also says which particle.
        eta: the slice, (low, high) in hundredths, within the barrel; events are even in it.
        momentum: in MeV.

    Raises:
        ValueError: a particle, slice or layer that these parametrisations do not know.
    """
    if binning.pid not in MASSES:
        raise ValueError(f"pid {binning.pid}: not known; valid: {', '.join(map(str, MASSES))}")
    if not 0 <= eta[0] < eta[1] <= ETA_MAX:
        raise ValueError(
            f"eta {eta[0]} to {eta[1]}: the generator knows the barrel alone, 0 to {ETA_MAX} "
            "hundredths"
        )
    unknown = [layer.id for layer in binning.layers if layer.id not in LAYERS]
    if unknown:
        raise ValueError(f"layers {unknown}: the generator knows the layers {list(LAYERS)}")
    etas = rng.uniform(eta[0] / 100.0, eta[1] / 100.0, events)
    # The barrel's layers are cylinders about the beam: a way at an angle is 1 / sin(theta) longer.
    stretch = np.cosh(etas)
    energy = np.full(events, float(kinetic(binning.pid, np.array(float(momentum)))) / 1e3)
    if binning.pid == 22:
        found = photons(energy, stretch, binning, rng)
    elif binning.pid == 11:
        found = electrons(energy, np.zeros(events), stretch, binning, rng)
    else:
        found = pions(energy, stretch, binning, rng)
    phi = rng.uniform(0.0, 2.0 * math.pi / 1024.0, events)  # within an accordion cell
    return np.column_stack([phi, etas, 1e3 * found])
