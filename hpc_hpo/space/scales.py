"""Continuous distributions as maps between values and the unit interval."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Protocol

#: Normal distributions are cut here, at six standard deviations, so that values stay finite.
TAIL = 1e-9


class Scale(Protocol):
    """A continuous distribution."""

    def cdf(self, x: float) -> float:
        """Value to unit interval, monotone."""

    def ppf(self, u: float) -> float:
        """The inverse of cdf."""


class LinearScale:
    """Uniform between two ends."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def cdf(self, x: float) -> float:
        return min(max((x - self.low) / (self.high - self.low), 0.0), 1.0)

    def ppf(self, u: float) -> float:
        return self.low + u * (self.high - self.low)


class LogScale:
    """Uniform in the logarithm between two positive ends; the base makes no difference."""

    def __init__(self, low: float, high: float) -> None:
        self._log = LinearScale(math.log(low), math.log(high))

    def cdf(self, x: float) -> float:
        return self._log.cdf(math.log(x))

    def ppf(self, u: float) -> float:
        return math.exp(self._log.ppf(u))


class NormalScale:
    """Normal with mean mu and standard deviation sigma."""

    def __init__(self, mu: float, sigma: float) -> None:
        self._normal = NormalDist(mu, sigma)

    def cdf(self, x: float) -> float:
        return self._normal.cdf(x)

    def ppf(self, u: float) -> float:
        return self._normal.inv_cdf(min(max(u, TAIL), 1.0 - TAIL))


class LogNormalScale:
    """base ** normal(mu, sigma)."""

    def __init__(self, mu: float, sigma: float, base: float) -> None:
        self._normal, self._base = NormalScale(mu, sigma), base

    def cdf(self, x: float) -> float:
        return self._normal.cdf(math.log(x) / math.log(self._base)) if x > 0 else 0.0

    def ppf(self, u: float) -> float:
        return float(self._base ** self._normal.ppf(u))
