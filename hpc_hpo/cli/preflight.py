"""The preflight of one study, and its table; part of `check` and of `prestage`."""

from __future__ import annotations

import glob
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from hpc_hpo.cli.common import echo_findings
from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.preflight import Finding, Target, Walk, compare, target_of, versions_here
from hpc_hpo.preflight.scan import unknown
from hpc_hpo.prestage.manifest import Manifest, load_manifest
from hpc_hpo.prestage.wheel_inputs import wheelhouses
from hpc_hpo.prestage.wheelhouse import Wheelhouse
from hpc_hpo.site import Site
from hpc_hpo.study import Input, Study


def preflight(study: Study, folder: StudyFolder, site: Site) -> tuple[list[Finding], int]:
    """What of a study's files will not run on the nodes of a site.

    Looks at what is staged; at the sources of what is not yet; at the program or the compiled
    modules beside the objective; and at the workers' environment, where it can be found.

    Returns:
        (findings, ELF objects that were looked at).
    """
    target = target_of(site)
    walk = Walk(target)
    manifest = load_manifest(folder) or Manifest()
    for spec in study.all_inputs():
        if spec.kind == "requirements":
            continue
        if manifest.holds(spec.name, spec.segment):
            staged = manifest.paths_of(spec.segment)[spec.name]
            walk.path(folder.path / staged, staged)
            if spec.kind == "environment":
                walk.findings += _without_parsl(walk, staged)
        elif spec.remote:
            walk.findings.append(
                Finding(spec.label(), "not fetched yet", "a look at it",
                        "hpc-hpo prestage fetches and checks it", "not checked", "unread")
            )  # fmt: skip
        else:
            for path in _sources(study, spec):
                walk.path(path)
    for _, house, held in wheelhouses(study, manifest, folder):
        label = os.path.relpath(house, folder.path)
        walk.path(house, label)
        walk.findings += _without_wheels(held, label, target)
    for path in _own_files(study):
        walk.path(path)
    rows = [*unknown(target), *walk.findings, *_environment(walk, target, site)]
    return list(dict.fromkeys(rows)), walk.objects


def _without_parsl(walk: Walk, label: str) -> Iterator[Finding]:
    """An environment from which no worker can run; a command's own may do without."""
    held = [p for where, p in walk.versions.places.items() if where.startswith(label)]
    if not any("parsl" in place.packages for place in held):
        parsl = versions_here().packages.get("parsl", "")
        yield Finding(
            label, "an environment without Parsl", f"Parsl {parsl}, if workers run from it",
            f"pip install parsl=={parsl} there", "warning", "parsl",
        )  # fmt: skip


def _without_wheels(held: Wheelhouse | None, label: str, target: Target) -> Iterator[Finding]:
    """What a wheelhouse lacks: something else has to supply it."""
    if held is None:
        yield Finding(
            label, "wheels not fetched yet", f"wheels for {target.arch_name}",
            "hpc-hpo prestage fetches them", "not checked", "wheel",
        )  # fmt: skip
        return
    for lack in held.missing:
        yield Finding(
            f"{label}: {lack.name}{lack.needed}", lack.why, f"by {lack.by}", lack.remedy,
            "warning" if lack.known else "wrong", "wheel",
        )  # fmt: skip


def _sources(study: Study, spec: Input) -> list[Path]:
    pattern = os.path.join(study.folder, os.path.expanduser(spec.source.removeprefix("file://")))
    return [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]


def _own_files(study: Study) -> Iterator[Path]:
    """The command's program, where it is a file of the user's own, or the compiled modules beside
    the objective, which is imported from where it is."""
    if study.command is not None:
        program = study.folder / study.command[0]
        if program.is_file() and "{" not in study.command[0]:
            yield program
        return
    module = (study.objective or "").partition(":")[0]
    home = (study.folder / module).parent if module.endswith(".py") else study.folder
    yield from sorted(home.glob("*.so"))


def _environment(walk: Walk, target: Target, site: Site) -> Iterator[Finding]:
    """The workers' environment against this one: that of an input, or of the site's file."""
    here = versions_here()
    if site.python is not None:
        yield from _prefix_of(Path(os.path.expanduser(site.python)), walk)
    found = list(compare(walk.versions, here, target.python))
    if any("parsl" in place.packages for place in walk.versions.places.values()):
        yield from found
        return
    ends = f"Python {target.python_text} and Parsl {here.packages.get('parsl', '')} on both ends"
    if site.python is None and not site.batch:
        return
    if site.python is None and not (site.modules or site.worker_init):
        if platform.machine() != site.arch:
            yield Finding(
                "the workers' Python", f"{sys.executable}, of {platform.machine()}", site.arch,
                "run hpc-hpo on the site's login node, or state python in the site's file",
                "warning", "python",
            )  # fmt: skip
        return
    how = "python" if site.python else "modules" if site.modules else "worker_init"
    yield Finding(
        "the workers' Python", f"what {how} of site {site.name} makes of it", ends,
        f"hpc-hpo doctor --site {site.name} --job asks a node", "not checked", "python",
    )  # fmt: skip


def _prefix_of(python: Path, walk: Walk) -> Iterator[Finding]:
    """Look at the environment of an interpreter, when it is one: a venv's or conda's."""
    prefix = python.parent.parent
    if (prefix / "pyvenv.cfg").is_file() or (prefix / "conda-meta").is_dir():
        begin = len(walk.findings)
        walk.path(prefix)
        yield from walk.findings[begin:]


def show(findings: Sequence[Finding], site: Site, *, plain: bool, every: bool) -> None:
    """Print the table; nothing where there is nothing to tell.

    Args:
        plain: lines that a program can read, as in a pipe.
        every: one row for each place, also where many say the same.
    """
    rows = list(findings) if every else list(_together(findings))
    echo_findings(
        ["", "file", "found", f"needed at {site.name}", "remedy"],
        [(row.level, row.where, row.found, row.needed, row.remedy) for row in rows],
        plain=plain,
    )


def _together(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One row for all places in one file or folder that say the same."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for row in findings:
        groups.setdefault(
            (row.level, row.root or row.where, row.found, row.needed, row.remedy), []
        ).append(row)
    for group in groups.values():
        more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
        yield replace(group[0], where=group[0].where + more)


def refuse(findings: Sequence[Finding], site: Site) -> None:
    """End the command when something will not run.

    Raises:
        InputError: it names the first, and how many there are.
    """
    wrong = [row for row in findings if row.level == "wrong"]
    if wrong:
        first = wrong[0]
        raise InputError(
            f"{first.where}: {first.found}, needed is {first.needed}"
            + (f"; and {len(wrong) - 1} more, see the table" if len(wrong) > 1 else ""),
            file=f"preflight for site {site.name}",
        )


def summary(findings: Sequence[Finding], objects: int, site: Site) -> str:
    """One line about a preflight that found nothing wrong."""
    left = sum(row.level == "not checked" for row in findings)
    words = f"{objects} compiled objects fit {site.arch}" if objects else "nothing compiled"
    return words + (f"; {left} things not checked" if left else "")


def run_preflight(
    study: Study, folder: StudyFolder, site: Site, *, plain: bool, every: bool
) -> str:
    """Scan, show, and refuse what will not run.

    Returns:
        One line about what was found to be right.

    Raises:
        InputError: something will not run on the site's nodes.
    """
    findings, objects = preflight(study, folder, site)
    show(findings, site, plain=plain, every=every)
    refuse(findings, site)
    return summary(findings, objects, site)


plain_option = click.option("--plain", is_flag=True, help="The table as plain lines.")
every_option = click.option("--all", "every", is_flag=True, help="A row for every file.")
