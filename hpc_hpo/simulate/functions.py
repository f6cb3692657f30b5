"""Test functions with known minima, by their names; benchmarks/ takes them from here, too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Hartmann's functions (Dixon and Szegö, 1978): four bumps of heights ALPHA.
ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
WIDTHS = {
    3: np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]]),
    6: np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    ),
}
CENTRES = {
    3: 1e-4
    * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]),
    6: 1e-4
    * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    ),
}


def hartmann(x: np.ndarray, fidelity: np.ndarray | float = 1.0) -> float:
    """Hartmann's function of 3 or 6 numbers in [0, 1], to be minimised.

    A fidelity below 1 (one for all, or one for each of the four bumps) takes 0.1 (1 - fidelity) off
    the bumps' heights: MF-Hartmann of Kandasamy et al., Multi-fidelity Bayesian optimisation with
    continuous approximations, ICML 2017.
    """
    dims = len(x)
    heights = ALPHA - 0.1 * (1.0 - np.broadcast_to(fidelity, 4))
    bumps = np.exp(-(WIDTHS[dims] * (x - CENTRES[dims]) ** 2).sum(1))
    return -float(heights @ bumps)


def ackley(x: np.ndarray) -> float:
    """Many shallow holes around a deep one, at 0 (Ackley, 1987)."""
    root = -0.2 * math.sqrt(float((x**2).mean()))
    wave = float(np.cos(2 * np.pi * x).mean())
    return -20.0 * math.exp(root) - math.exp(wave) + 20.0 + math.e


def rosenbrock(x: np.ndarray) -> float:
    """A bent valley, lowest at 1 (Rosenbrock, 1960)."""
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def levy(x: np.ndarray) -> float:
    """Waves over a bowl, lowest at 1 (Levy and Montalvo, 1985)."""
    w = 1.0 + (x - 1.0) / 4.0
    middle = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)).sum()
    last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
    return float(np.sin(np.pi * w[0]) ** 2 + middle + last)


def branin(x: np.ndarray) -> float:
    """Three equal minima (Branin, 1972), of x in [0, 1]; the lowest value is taken off."""
    a, b = 15.0 * x[0] - 5.0, 15.0 * x[1]
    bent = b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6
    return float(bent**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10 - 0.39788735772973816)


@dataclass(frozen=True)
class Function:
    """A function over [low, high] in each dimension.

    Attributes:
        dims: how many numbers it takes; None = any number, `least` and more.
        optimum: its lowest value.
    """

    f: Callable[[np.ndarray], float]
    low: float
    high: float
    dims: int | None = None
    least: int = 1
    optimum: float = 0.0

    def at(self, unit: np.ndarray) -> float:
        """Its value at unit coordinates, shape (dims,)."""
        return float(self.f(self.low + (self.high - self.low) * unit))


#: The optimum lies in the middle of none of them.
FUNCTIONS = {
    "branin": Function(branin, 0.0, 1.0, 2),
    "hartmann3": Function(hartmann, 0.0, 1.0, 3, optimum=-3.86278),
    "hartmann6": Function(hartmann, 0.0, 1.0, 6, optimum=-3.32237),
    "ackley": Function(ackley, -20.0, 32.0),
    "rosenbrock": Function(rosenbrock, -5.0, 10.0, least=2),
    "levy": Function(levy, -10.0, 10.0),
}
