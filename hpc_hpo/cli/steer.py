"""``hpc-hpo steer``: new points for all points so far, over files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.files import file_option
from hpc_hpo.contracts.steering import DEFAULT_OPTIMIZER
from hpc_hpo.contracts.steering import steer as answer
from hpc_hpo.errors import InputError


@click.command()
@file_option("--in", "source", "All points so far, and the search space.")
@file_option("--out", "target", "Gets the new points.")
@click.option(
    "--num-points",
    type=click.IntRange(min=0),
    required=True,
    help="New points wanted (of each model).",
)
@click.option(
    "--max-points",
    type=click.IntRange(min=0),
    required=True,
    help="Points in the whole search (of each model).",
)
@click.option(
    "--optimizer",
    default=DEFAULT_OPTIMIZER,
    show_default=True,
    metavar="NAME",
    help='A name, or a JSON object with it: {"name": "skopt", "surrogate": "GP"}.',
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Equal files and seeds give equal points.",
)
def steer(
    source: Path, target: Path, num_points: int, max_points: int, optimizer: str, seed: int
) -> None:
    """Answer one call of iDDS: read all points so far, write the new ones.

    Nothing is kept between calls. docs/atlas.md has the files.
    """
    answer(source, target, num_points, max_points, _optimizer(optimizer), seed)


def _optimizer(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", key="--optimizer", found=text) from None
