"""``hpc-hpo doctor``: whether a site is as its file takes it to be."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import echo_findings
from hpc_hpo.doctor.login import network_rows, scheduler_rows, version_rows
from hpc_hpo.doctor.node import node_rows
from hpc_hpo.doctor.rows import Row
from hpc_hpo.doctor.storage import storage_rows
from hpc_hpo.errors import HpoError, InputError
from hpc_hpo.site import load_site
from hpc_hpo.units import DURATION_FORMS, parse_duration


@click.command()
@click.option("--site", "site_name", default="local", show_default=True, help="Its name or file.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("."), help="The shared folder where studies will be (default: here).",
)  # fmt: skip
@click.option("--job", is_flag=True, help="Ask a compute node, too, by a short job.")
@click.option("--account", help="The account that pays for that job.")
@click.option("--queue", help="The queue to look for, and for that job.")
@click.option("--wait", default="10m", show_default=True, help="How long that job may take.")
@click.option("--plain", is_flag=True, help="The table as plain lines.")
def doctor(
    site_name: str, folder: Path, job: bool, account: str | None, queue: str | None, wait: str,
    plain: bool,
) -> None:  # fmt: skip
    """Look at a site as a first study will meet it, and say what to mend.

    Without --job nothing is submitted, and what only a compute node can tell is not checked.
    """
    site = load_site(site_name)
    try:
        wait_s = parse_duration(wait)
    except ValueError as error:
        raise InputError(str(error), key="--wait", found=wait, valid=DURATION_FORMS) from None
    folder = folder.resolve()
    rows = [
        *scheduler_rows(site, queue),
        *network_rows(site),
        *storage_rows(site, folder, account),
        *version_rows(site),
    ]
    if job:
        rows += node_rows(
            site, folder, account=account, queue=queue, wait_s=wait_s,
            tell=lambda text: click.echo(text, err=True),
        )  # fmt: skip
    elif site.batch:
        rows.append(
            Row("not checked", "compute nodes", "folder, locks, clock and packages there",
                f"hpc-hpo doctor --site {site_name} --job asks one")
        )  # fmt: skip
    echo_findings(["", "check", "found", "remedy"], rows, plain=plain)
    failed = [row.check for row in rows if row.state == "fail"]
    if failed:
        raise HpoError(f"{len(failed)} of {len(rows)} checks fail: {', '.join(failed)}")
