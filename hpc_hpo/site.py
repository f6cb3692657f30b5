"""Site files: what a machine is like. One YAML file a site; those in site_configs/ have names.

Keys are explained in docs/study.md.
"""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.schema import (
    Count,
    Duration,
    Model,
    PositiveDuration,
    Size,
    one_of,
    refuse,
    require_mapping,
    validate,
)
from hpc_hpo.yamlio import Document, load_yaml

_PACKAGE = Path(__file__).parent


def _this_arch(value: Any) -> Any:
    return platform.machine() if value == "auto" else value


def _cores(value: Any) -> Any:
    if value == "auto":
        # Not cpu_count: a container or a batch system may have granted fewer.
        return len(os.sched_getaffinity(0))
    if isinstance(value, str):
        raise refuse("not a number of cores", "a whole number, or auto for this machine's")
    return value


class Node(Model):
    """The shape of one node."""

    cores: Annotated[Count, BeforeValidator(_cores)] = Field(
        "auto", validate_default=True, description="usable cores, or auto"
    )
    gpus: int = Field(0, ge=0, description="GPUs")
    memory: Size | None = Field(None, description="memory that jobs may use")


class Heartbeat(Model):
    """How soon the two ends of a pilot notice that the other is gone."""

    period: PositiveDuration = Field(2.0, description="time between signs of life")
    threshold: PositiveDuration = Field(6.0, description="silence after which one is gone")


class Site(Model):
    """A validated site. Built by load_site."""

    name: str = Field(min_length=1, description="the site's name")
    scheduler: Literal["local"] = Field(description="what starts blocks: local")
    launcher: Literal["none"] = Field("none", description="what starts ranks on nodes")
    arch: Annotated[str, BeforeValidator(_this_arch)] = Field(
        "auto", validate_default=True, description="the nodes' architecture, as of uname -m"
    )
    node: Node = Field(default_factory=Node, description="the shape of one node")
    address: str = Field(
        "127.0.0.1", min_length=1, description="where workers reach the steering process"
    )
    heartbeat: Heartbeat = Field(Heartbeat(), description="signs of life")
    worker_init: str = Field("", description="shell lines that run before workers start")
    kill_grace: Duration = Field(1.0, description="TERM to KILL at the walltime")
    checkpoint_floor: Duration = Field(1.0, description="smallest margin before a deadline")
    poll: PositiveDuration = Field(1.0, description="time between looks at the blocks' states")
    max_walltime: PositiveDuration | None = Field(None, description="longest walltime of a block")

    _path: Path = PrivateAttr()

    @property
    def path(self) -> Path:
        """The site's file, absolute."""
        return self._path


def sites_folder() -> Path:
    """The folder of the sites that have names: inside an installed package, beside it in a
    checkout."""
    installed = _PACKAGE / "site_configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "site_configs"


def list_sites() -> list[str]:
    """Names of the sites that come with the package, sorted."""
    return sorted(p.stem for p in sites_folder().glob("*.yaml"))


def _site_path(name: str, relative_to: Path, named_in: Document | None, key: str) -> Path:
    if "/" in name or name.endswith((".yaml", ".yml")):
        return relative_to / Path(name).expanduser()
    known = list_sites()
    if name in known:
        return sites_folder() / f"{name}.yaml"
    valid = f"{one_of(name, known)}; or the path of a site file, as in ./{name}.yaml"
    if named_in is not None:
        raise named_in.problem(key, "unknown site", found=name, valid=valid)
    raise InputError("unknown site", key=key, found=name, valid=valid)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; mappings are merged key by key."""
    merged = {**base, **over}
    for key, value in over.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merge(below, value)
    return merged


def _read(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Document]:
    """The data of a site file on top of that of the site it extends."""
    doc = load_yaml(path)
    data = dict(require_mapping(doc, "site"))
    parent = data.pop("extends", None)
    if parent is None:
        return data, doc
    if not isinstance(parent, str):
        raise doc.problem("extends", "wrong type", found=parent, valid="a site's name or path")
    seen = (*seen, path.resolve())
    below = _site_path(parent, path.parent, doc, "extends")
    if below.resolve() in seen:
        raise doc.problem("extends", "the sites extend each other in a circle", found=parent)
    base, base_doc = _read(below, seen)
    return _merge(base, data), replace(doc, base=base_doc)


def load_site(
    name_or_path: str, relative_to: Path | None = None, *, named_in: Document | None = None
) -> Site:
    """Read and validate a site.

    Args:
        name_or_path: the name of a site of the package; or, with a slash or .yaml, a path.
        relative_to: the folder where a relative path begins; by default the current one.
        named_in: the file whose key `site` gives the name, for messages.

    Raises:
        InputError: there is no such site, or one thing is wrong with its file.
        InputErrors: several things are.
    """
    path = _site_path(name_or_path, relative_to or Path(), named_in, "site")
    data, doc = _read(path)
    site, errors = validate(Site, data, doc)
    if site is not None and site.heartbeat.threshold <= site.heartbeat.period:
        errors.append(
            doc.problem(
                "heartbeat.threshold",
                "not longer than the period: every worker would seem dead",
                found=doc.scalars.get("heartbeat.threshold"),
                valid="about 3 periods",
            )
        )
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
    assert site is not None, "a failure has its errors"
    site._path = path.absolute()
    return site
