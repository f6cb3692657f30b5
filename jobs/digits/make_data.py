"""Write the digits as two files: what the study may see, and the test split it may not.

scikit-learn's bundled handwritten digits: 1,797 images of 8 x 8 pixels, ten classes, from the
UCI "Optical Recognition of Handwritten Digits" set. Nothing is downloaded.

    python make_data.py [FOLDER]          default: data/ beside this file
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20240229
TRAIN, VALIDATION = 1077, 360  # the other 360 are the test split


def split_digits() -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of the two files.

    Returns:
        (seen, unseen): ``x_train``, ``y_train``, ``x_validation``, ``y_validation``; and
        ``x_test``, ``y_test``. Images: float32 (n, 64) in [0, 1]; labels: int64 (n,).
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16.0).astype(np.float32)
    order = np.random.default_rng(SEED).permutation(len(labels))
    parts = dict(
        zip(
            ("train", "validation", "test"),
            np.split(order, [TRAIN, TRAIN + VALIDATION]),
            strict=True,
        )
    )
    arrays = {f"x_{name}": images[rows] for name, rows in parts.items()} | {
        f"y_{name}": labels[rows].astype(np.int64) for name, rows in parts.items()
    }
    unseen = {key: arrays.pop(key) for key in ("x_test", "y_test")}
    return arrays, unseen


def write_data(folder: Path) -> list[Path]:
    """Write ``digits.npz`` and ``digits_test.npz`` into `folder` and return their paths.

    Each file is replaced in one step, so that a copy already staged by a link stays whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen, unseen = split_digits()
    written = []
    for name, arrays in (("digits.npz", seen), ("digits_test.npz", unseen)):
        path = folder / name
        temporary = folder / f".{os.getpid()}.{name}"
        np.savez(temporary, **arrays)
        os.replace(temporary, path)
        written.append(path)
    return written


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for file in write_data(target):
        print(f"{file}: {file.stat().st_size} bytes")
