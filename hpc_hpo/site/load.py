"""From site files to a Site, or to everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.schema import one_of, require_mapping, validate
from hpc_hpo.site.check import check_together
from hpc_hpo.site.machine import Site
from hpc_hpo.yamlio import Document, load_yaml

_PACKAGE = Path(__file__).parents[1]
#: What a batch site has where its file does not say otherwise: a login node is shared, so polls
#: are rare; a lost node is noticed within a minute; a parallel file system can be slow.
BATCH_DEFAULTS: dict[str, Any] = {
    "heartbeat": {"period": "10s", "threshold": "30s"},
    "poll": "30s",
    "kill_grace": "10s",
    "checkpoint_floor": "30s",
}


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


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; mappings are merged key by key."""
    merged = {**base, **over}
    for key, value in over.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merge(below, value)
    return merged


def _without_settled_doubts(base: dict[str, Any], over: Document) -> dict[str, Any]:
    """`base` without the marks of keys that `over` states itself."""
    doubts = base.get("unverified")
    if not isinstance(doubts, dict):
        return base
    return {**base, "unverified": {k: why for k, why in doubts.items() if k not in over.lines}}


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
    return _merge(_without_settled_doubts(base, doc), data), replace(doc, base=base_doc)


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
    if data.get("scheduler") in ("lsf", "slurm", "pbs"):
        data = _merge(BATCH_DEFAULTS, data)
    site, errors = validate(Site, data, doc)
    if site is not None:
        errors.extend(check_together(site, data, doc))
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
    assert site is not None, "a failure has its errors"
    site._path = path.absolute()
    return site
