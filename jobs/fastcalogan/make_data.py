"""Make showers in the layout of FastCaloGAN's training files: one tar for each pid and slice.

    python make_data.py                          3 particles x 5 slices, 4 momenta, 2000 events each
    python make_data.py --events 500 --etas 0 5  a smaller set

Nothing is downloaded. The showers come from published parametrisations (showers.py), not from
Geant4: they stand in for the real files, which cannot be shipped. Equal options give equal bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from showers import MASSES, generate
from voxels import DataError, load_binning, write_showers

HERE = Path(__file__).resolve().parent
WIDTH = 5  # of a slice, hundredths


def make(
    folder: Path,
    binning: Path,
    pids: list[int],
    etas: list[int],
    momenta: list[int],
    events: int,
    seed: int,
) -> list[Path]:
    """Write the tars into `folder` and return their paths.

    Raises:
        DataError: binning.xml cannot be used; ValueError: showers.generate cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for pid in pids:
        for low in etas:
            eta = (low, low + WIDTH)
            voxels = load_binning(binning, pid, eta)
            tables = {}
            for momentum in momenta:
                rng = np.random.default_rng([seed, pid, low, momentum])
                tables[momentum] = generate(voxels, eta, momentum, events, rng)
            written.append(write_showers(folder, pid, eta, tables))
    return written


def main(arguments: list[str]) -> None:
    """Run as a script; `arguments` are those after its name."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=HERE / "data")
    parser.add_argument("--binning", type=Path, default=HERE / "binning.xml")
    parser.add_argument("--pids", type=int, nargs="+", default=[*MASSES])
    parser.add_argument(
        "--etas", type=int, nargs="+", default=[0, 5, 10, 15, 20], help="low ends, hundredths"
    )
    parser.add_argument(
        "--momenta", type=int, nargs="+", default=[8192, 32768, 131072, 524288], help="MeV"
    )
    parser.add_argument("--events", type=int, default=2000, help="of each momentum")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    if chosen.events < 1 or min(chosen.momenta) < 1:
        sys.exit("--events and --momenta must be at least 1")
    try:
        written = make(
            chosen.folder,
            chosen.binning,
            chosen.pids,
            chosen.etas,
            chosen.momenta,
            chosen.events,
            chosen.seed,
        )
    except (DataError, ValueError) as error:
        sys.exit(str(error))
    size = sum(file.stat().st_size for file in written)
    print(f"{chosen.folder}: {len(written)} files of showers, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
