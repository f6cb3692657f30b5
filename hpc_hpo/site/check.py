"""What one key of a site file says about another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.site.machine import Site
from hpc_hpo.yamlio import Document

#: The launchers that each scheduler's jobs can have.
LAUNCHERS = {
    "local": ("none", "mpiexec", "openmpi"),
    "lsf": ("none", "jsrun", "mpiexec", "openmpi"),
    "slurm": ("none", "srun", "mpiexec", "openmpi"),
    "pbs": ("none", "mpiexec", "openmpi"),
}


def written(doc: Document, key: str) -> str | None:
    """The scalar at `key` as the file, or the one it extends, spells it."""
    if key in doc.scalars or doc.base is None:
        return doc.scalars.get(key)
    return written(doc.base, key)


def has_key(data: Any, path: str) -> bool:
    """Whether the nested mappings of `data` hold the key path; names may hold dots."""
    if not isinstance(data, Mapping):
        return False
    if path in data:
        return True
    heads = (name for name in data if path.startswith(f"{name}."))
    return any(has_key(data[name], path[len(name) + 1 :]) for name in heads)


def check_together(site: Site, data: Mapping[str, Any], doc: Document) -> Iterator[InputError]:
    """The contradictions of a site whose keys are valid one by one.

    Args:
        site: the site.
        data: what its files state, merged.
        doc: the site's file, for messages.
    """
    if site.heartbeat.threshold <= site.heartbeat.period:
        yield doc.problem(
            "heartbeat.threshold",
            "not longer than the period: every worker would seem dead",
            found=written(doc, "heartbeat.threshold"),
            valid="about 3 periods",
        )
    node = site.node
    if node.gpu_domains and (
        len(node.gpu_domains) != node.gpus or max(node.gpu_domains) >= node.domains
    ):
        yield doc.problem(
            "node.gpu_domains",
            f"not the domains of {node.gpus} GPUs on a node with {node.domains}",
            found=list(node.gpu_domains), valid=f"{node.gpus} numbers from 0 to {node.domains - 1}",
        )  # fmt: skip
    launchers = LAUNCHERS[site.scheduler]
    if site.launcher not in launchers:
        yield doc.problem(
            "launcher", f"scheduler {site.scheduler} has no such launcher", found=site.launcher,
            valid=list(launchers),
        )  # fmt: skip
    if site.scheduler != "lsf":
        for key in ("style", "size"):
            if key in site.submit.model_fields_set:
                yield doc.problem(f"submit.{key}", "this goes with scheduler lsf")
    if site.batch and not site.model_fields_set & {"address", "interface"}:
        yield doc.problem(
            "interface",
            "workers on other nodes need to know where steering is",
            valid="the interface's name, as in ib0 (ip -brief address lists them); or address",
        )
    if site.cpu_limit is not None and site.cpu_limit.warn > site.cpu_limit.kill:
        yield doc.problem(
            "cpu_limit.warn", "later than the kill", found=written(doc, "cpu_limit.warn"),
            valid=f"at most {written(doc, 'cpu_limit.kill')}",
        )  # fmt: skip
    yield from _check_queues(site, doc)
    for key in site.unverified:
        if not has_key(data, key):
            yield doc.problem(
                f"unverified.{key}", "the site states no such key", valid="a key path of this site"
            )


def _check_queues(site: Site, doc: Document) -> Iterator[InputError]:
    if site.queues and not site.batch:
        yield doc.problem("queues", "scheduler local has no queues")
    marked = [name for name, queue in site.queues.items() if queue.default]
    for name in marked[1:]:
        yield doc.problem(
            f"queues.{name}.default", f"queue {marked[0]} is the default already",
            valid="one default queue",
        )  # fmt: skip
    for name, queue in site.queues.items():
        if site.scheduler != "slurm":
            for key in ("partition", "qos"):
                if getattr(queue, key) is not None:
                    yield doc.problem(f"queues.{name}.{key}", "this goes with scheduler slurm")
        end = 0
        for i, entry in enumerate(queue.bins):
            if entry.nodes[0] <= end:
                yield doc.problem(
                    f"queues.{name}.bins[{i}].nodes",
                    "bins follow one another from few nodes to many, without overlap",
                    found=list(entry.nodes),
                    valid=f"a range that begins above {end}",
                )
            end = max(end, entry.nodes[1])
