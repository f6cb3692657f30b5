"""``hpc-hpo sites``: the sites that have names, and one with its queues."""

from __future__ import annotations

import click

from hpc_hpo.cli.common import duration, echo_rows
from hpc_hpo.site import Bin, Queue, Site, list_sites, load_site
from hpc_hpo.units import format_size


@click.group(invoke_without_command=True)
@click.pass_context
def sites(ctx: click.Context) -> None:
    """List the sites that have names.

    A study takes one by its name, `site: summit`, or by the path of a site file.
    """
    if ctx.invoked_subcommand is None:
        loaded = [load_site(name) for name in list_sites()]
        echo_rows([(site.name, f"{_how(site)}; {_node(site)}") for site in loaded])


@sites.command()
@click.argument("name", metavar="SITE")
def show(name: str) -> None:
    """Show one site with its queues. SITE is a name, or the path of a site file."""
    site = load_site(name)
    click.echo(f"{site.name} ({site.path})")
    echo_rows([(label, text) for label, text in _rows(site) if text])
    for queue_name, queue in site.queues.items():
        click.echo(f"\nqueue {queue_name}{_traits(queue)}")
        rows = [(f"{b.nodes[0]} to {b.nodes[1]} nodes", _bin(b)) for b in queue.bins]
        echo_rows(rows or [("any size", "no limit is known")])
    if site.unverified:
        click.echo("\nunverified")
        echo_rows(list(site.unverified.items()))


def _how(site: Site) -> str:
    return site.scheduler if site.launcher == "none" else f"{site.scheduler} + {site.launcher}"


def _node(site: Site) -> str:
    node = site.node
    parts = [f"{node.cores} cores" + (f" of {node.smt} threads" if node.smt > 1 else "")]
    if node.domains > 1:
        parts.append(f"{node.domains} NUMA domains")
    if node.gpus:
        domains = " ".join(map(str, node.gpu_domains))
        of = f"{node.gpu_vendor}, in domains {domains}" if domains else node.gpu_vendor
        parts.append(f"{node.gpus} GPUs ({of})")
    if node.memory:
        parts.append(format_size(node.memory))
    return ", ".join([*parts, site.arch])


def _submission(site: Site) -> str:
    if site.scheduler != "lsf":
        return ""
    how = "bsub SCRIPT" if site.submit.style == "file" else "bsub < SCRIPT"
    slots = f"-n SLOTS -R span[ptile={site.node.cores}]"
    return f"{how}, sized by {'-nnodes N' if site.submit.size == 'nodes' else slots}"


def _reached(site: Site) -> str:
    if site.interface is not None and "address" not in site.model_fields_set:
        return f"at the address of interface {site.interface}"
    return f"at {site.address}"


def _python(site: Site) -> str:
    version = f" (Python {site.python_version})" if site.python_version else ""
    return (site.python or "that of the login node") + version


def _rows(site: Site) -> list[tuple[str, str]]:
    limit, warning = site.cpu_limit, site.warning
    return [
        ("scheduler", _how(site)),
        ("submission", _submission(site)),
        ("node", _node(site)),
        ("page size", format_size(site.page_size) if site.page_size else ""),
        ("C library", f"glibc {site.glibc}" if site.glibc else ""),
        ("workers reach steering", _reached(site)),
        ("outside network", "yes" if site.network else "no"),
        ("scratch", site.scratch or ""),
        ("purged", ", ".join(site.purged)),
        ("node-local folder", site.node_local or ""),
        ("workers' python", _python(site)),
        ("supplied by modules", "; ".join(f"{k}: {v}" for k, v in site.supplies.items())),
        ("modules", ", ".join(site.modules)),
        ("worker init", "; ".join(site.worker_init.strip().splitlines())),
        ("directives", "; ".join(site.directives)),
        ("a study must give", ", ".join(site.requires)),
        (
            "lost workers",
            f"noticed after {duration(site.heartbeat.threshold)} "
            f"(a sign of life every {duration(site.heartbeat.period)})",
        ),
        ("scheduler polled", f"every {duration(site.poll)}"),
        ("warning", f"{warning.signal}, {duration(warning.ahead)} ahead" if warning else ""),
        (
            "before the end",
            f"{duration(site.checkpoint_floor)} at least for checkpoints, "
            f"{duration(site.kill_grace)} from TERM to KILL",
        ),
        (
            "login node",
            f"slows a process at {duration(limit.warn)} of CPU time, "
            f"kills it at {duration(limit.kill)}"
            if limit
            else "",
        ),
        ("longest walltime", duration(site.max_walltime) if site.max_walltime else ""),
    ]


def _traits(queue: Queue) -> str:
    traits = ["default"] if queue.default else []
    options = (("-p", queue.partition), ("-q", queue.qos))
    traits += [f"{option} {value}" for option, value in options if value is not None]
    limits = (
        ("eligible", queue.max_eligible),
        ("running", queue.max_running),
        ("in any state", queue.max_queued),
    )
    traits += [f"at most {n} jobs {word}" for word, n in limits if n is not None]
    if not queue.chaining:
        traits.append("no chains of jobs")
    return f": {', '.join(traits)}" if traits else ""


def _bin(entry: Bin) -> str:
    text = f"up to {duration(entry.walltime)}"
    if entry.preemptible_after is not None:
        text += f", may be preempted after {duration(entry.preemptible_after)}"
    return text
