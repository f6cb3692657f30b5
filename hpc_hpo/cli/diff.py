"""``hpc-hpo diff``: in which settings two studies differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import echo_findings, one_line
from hpc_hpo.launch import open_study, site_of
from hpc_hpo.results.table import strict_json
from hpc_hpo.study import Change, compare

_path = click.Path(path_type=Path)


@click.command()
@click.argument("first", type=_path, metavar="A")
@click.argument("second", type=_path, metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Show in which settings two studies differ, key by key.

    A and B are study folders or study files. Both are read with all defaults filled in, and with
    the settings of their sites, under `site.`.
    """
    changes = differences(_settings(first), _settings(second))
    if as_json:
        plain = [{"key": c.key, "a": c.old, "b": c.new, "harmless": c.harmless} for c in changes]
        click.echo(strict_json(plain, indent=1))
    elif not changes:
        click.echo("no difference")
    else:
        rows = [(c.key, _text(c.old), _text(c.new)) for c in changes]
        echo_findings(("key", "A", "B"), rows, plain=False)


def _settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(study, site), with their defaults."""
    study, _ = open_study(path)
    return study.to_dict(), site_of(study).model_dump(mode="json")


def differences(
    first: tuple[dict[str, Any], dict[str, Any]], second: tuple[dict[str, Any], dict[str, Any]]
) -> list[Change]:
    """What differs between two pairs of (study, site)."""
    own = compare(first[0], second[0])
    sites = compare(first[1], second[1])
    return own + [Change(f"site.{c.key}", c.old, c.new, harmless=True) for c in sites]


def _text(value: Any) -> str:
    return "(not set)" if value is None else one_line(strict_json(value))
