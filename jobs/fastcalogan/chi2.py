"""How far two samples of total energies are from one another: chi2 and degrees of freedom."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BINS, WIDTH = 30, 3.0
#: Cochran's rule: below five expected entries a bin's term no longer follows chi2.
EXPECTED = 5.0


def merge_low(first: Array, second: Array, least: float) -> tuple[Array, Array]:
    """Join neighbouring bins until each holds at least `least` entries of both together.

    Only the sum of both decides, so that merging takes no side: where both samples come from
    one distribution, either is a random part of the sum, with the bins given.

    Args:
        first, second: counts (bins,).

    Returns:
        The counts in the joined bins; one bin when there are too few entries for two.
    """
    joined: list[list[float]] = []
    open_bin = [0.0, 0.0]
    for one, other in zip(first, second, strict=True):
        open_bin = [open_bin[0] + one, open_bin[1] + other]
        if sum(open_bin) >= least:
            joined.append(open_bin)
            open_bin = [0.0, 0.0]
    if joined:
        joined[-1] = [joined[-1][0] + open_bin[0], joined[-1][1] + open_bin[1]]
    else:
        joined = [open_bin]
    counts = np.array(joined)
    return counts[:, 0], counts[:, 1]


def two_histograms(first: Array, second: Array) -> tuple[float, int]:
    """chi2 and degrees of freedom of two histograms that both have statistical errors.

    With n_i of N entries in one and m_i of M in the other,
    chi2 = sum (M n_i - N m_i)^2 / (n_i + m_i) / (N M), with bins - 1 degrees of freedom
    (Cramer, Mathematical Methods of Statistics, 1946, section 30.6; N. Gagunashvili,
    physics/0605123; ROOT's Chi2Test "UU").

    Args:
        first, second: counts (bins,), no bin empty in both.
    """
    n, m = first.sum(), second.sum()
    chi2 = ((m * first - n * second) ** 2 / (first + second)).sum() / (n * m)
    return float(chi2), len(first) - 1


def compare(reference: Array, generated: Array) -> tuple[float, int]:
    """chi2 and degrees of freedom between two samples of one quantity.

    The bins are 30 within three standard deviations about the reference's mean and two for all
    that lies beyond; neighbours are joined until each has five entries expected of the smaller
    sample.

    Args:
        reference, generated: the values, (n,) and (m,), finite.
    """
    centre, spread = float(reference.mean()), float(reference.std())
    # A sample of equal values would have bins of no width.
    half = WIDTH * spread if spread > 0 else max(abs(centre), 1.0) * 1e-6
    inner = np.linspace(centre - half, centre + half, BINS + 1)
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    first = np.histogram(reference, edges)[0].astype(float)
    second = np.histogram(generated, edges)[0].astype(float)
    smaller = min(len(reference), len(generated))
    least = EXPECTED * (len(reference) + len(generated)) / smaller
    return two_histograms(*merge_low(first, second, least))
