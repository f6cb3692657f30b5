"""``hpc-hpo check --offline``: what a study's evaluation asks for on the network."""

from __future__ import annotations

import click

from hpc_hpo.cli.common import duration, echo_rows, point_text, value_text
from hpc_hpo.folder import StudyFolder
from hpc_hpo.rehearsal import NAMESPACES, Rehearsal, rehearse
from hpc_hpo.site import Site
from hpc_hpo.study import Study

#: Exit code when the evaluation failed, or asked for the network.
FOUND = 2


def check_offline(study: Study, site: Site, folder: StudyFolder, seconds: float) -> int:
    """Run one evaluation without a network and say what it showed; the exit code."""
    click.echo(f"one evaluation of {study.name} without a network, {duration(seconds)} at most ...")
    seen = rehearse(study, site, folder, seconds)
    echo_rows([("point", point_text(seen.point)), ("isolated by", _isolation(seen)),
               ("ended", _ending(seen))])  # fmt: skip
    for text in seen.attempts:
        click.echo(f"  asked for  {text}")
    error = seen.outcome.get("error") or {}
    failed = seen.outcome["end"] == "failed"
    if failed:
        click.echo(f"  {error.get('kind')}: {error.get('message')}")
        for line in str(error.get("traceback") or error.get("log_tail") or "").splitlines()[-15:]:
            click.echo(f"    {line}")
    if seen.attempts:
        click.echo(
            "It asked for a network that nodes may not have: stage what it fetches (inputs:), or, "
            "if it can do without, switch the asking off."
        )
    elif not failed:
        click.echo("It asked for nothing on the network.")
    return FOUND if seen.attempts or failed else 0


def _isolation(seen: Rehearsal) -> str:
    if seen.namespace:
        return f"a network namespace ({seen.namespace})"
    tried = ", ".join(" ".join(way[:2]) for way in NAMESPACES)
    return (
        f"the guard alone: no network namespace can be had here ({tried}). This proves less: "
        "code that is not Python was kept off the network only where the kernel let us"
    )


def _ending(seen: Rehearsal) -> str:
    outcome = seen.outcome
    took = duration(outcome["ended"] - outcome["started"])
    if seen.ran_out:
        return f"{outcome['end']} after {took}, before its end: what comes later was not seen"
    loss = outcome.get("loss")
    return f"{outcome['end']} after {took}" + (f", loss {value_text(loss)}" if loss else "")
