"""Staging beside `cp`: 10,000 small files and one of 4 GB, copied with their checksums.

    python benchmarks/prestage.py [--files 10000] [--large 4GB] [--rounds 3] [--dir DIR] [--json F]

Both copy the same files from and to one file system, in turns, warm: the sources are in the memory
of the machine as far as they fit. `cp` computes no checksums, writes no manifest and makes nothing
appear whole. *one input* has all small files in one folder; *many inputs* names each of them in
the study file, as studies of many segments do. *verify* reads all again. Goal: at most 1.5 times
the time of cp.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from common import machine, write_result

from hpc_hpo.folder import StudyFolder
from hpc_hpo.prestage.manifest import load_manifest
from hpc_hpo.prestage.staging import stage
from hpc_hpo.prestage.verify import verify
from hpc_hpo.study import load_study
from hpc_hpo.units import format_size, parse_size

#: Bytes of a small file.
SMALL = 4096


def make_files(folder: Path, files: int, large: int) -> None:
    """The sources: `small/` and `large`."""
    (folder / "small").mkdir()
    block = os.urandom(1 << 20)
    for number in range(files):
        (folder / "small" / f"{number:05d}.dat").write_bytes(os.urandom(SMALL))
    with open(folder / "large", "wb") as stream:
        for _ in range(large >> 20):
            stream.write(block)
    os.sync()


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def copy(folder: Path) -> None:
    """What cp does."""
    target = folder / "copied"
    target.mkdir()
    subprocess.run(["cp", "-r", "small", "large", str(target)], cwd=folder, check=True)


def write_study(folder: Path, many: bool, files: int) -> Path:
    """A study that copies the files into its folder."""
    place = folder / ("many" if many else "one")
    place.mkdir()
    small = [
        {"name": f"s{number:05d}", "source": f"../small/{number:05d}.dat", "mode": "copy"}
        for number in range(files)
    ]
    one = {"name": "small", "source": "../small", "mode": "copy"}
    spec = {
        "name": "study", "objective": "objective.py:train", "space": {"x": {"float": [0, 1]}},
        "budget": {"trials": 1},
        "inputs": [{"name": "large", "source": "../large", "mode": "copy"},
                   *(small if many else [one])],
    }  # fmt: skip
    file = place / "study.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--large", default="4GB", help="size of the large file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", help="on the file system to measure")
    parser.add_argument("--json")
    options = parser.parse_args()
    facts, large = machine(), parse_size(options.large)
    seconds: dict[str, list[float]] = {
        name: [] for name in ("cp", "one input", "many inputs", "again", "verify")
    }
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        folder = Path(scratch)
        make_files(folder, options.files, large)
        studies = {
            name: load_study(write_study(folder, name == "many inputs", options.files))
            for name in ("one input", "many inputs")
        }
        copy(folder)  # warms the sources
        for _ in range(options.rounds):
            shutil.rmtree(folder / "copied")
            os.sync()
            seconds["cp"].append(timed(lambda: copy(folder)))
            for name, study in studies.items():
                home = StudyFolder(study.folder / "study")
                os.sync()
                seconds[name].append(timed(lambda s=study, h=home: stage(s, h)))
                if name == "one input":
                    seconds["again"].append(timed(lambda s=study, h=home: stage(s, h)))
                    manifest = load_manifest(home)
                    assert manifest is not None and len(manifest.files) == options.files + 1
                    problems: list[str] = []
                    seconds["verify"].append(
                        timed(
                            lambda m=manifest, h=home, p=problems: p.extend(
                                verify(m, h, rehash=True)
                            )
                        )
                    )
                    assert not problems, problems[:3]
                shutil.rmtree(home.path)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{options.files} files of {SMALL} bytes, one of {format_size(large)}; "
          f"median of {options.rounds} rounds (range)")  # fmt: skip
    for name, values in seconds.items():
        print(
            f"{name:12s} {medians[name]:7.2f} s ({min(values):.2f} to {max(values):.2f})"
            f"  {medians[name] / medians['cp']:5.2f} x cp"
        )
    write_result(options.json, {
        "machine": facts, "files": options.files, "small": SMALL, "large": large,
        "seconds": seconds, "ratio": {n: m / medians["cp"] for n, m in medians.items()},
    })  # fmt: skip


if __name__ == "__main__":
    main()
