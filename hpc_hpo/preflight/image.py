"""OCI layouts and docker archives: from the index to the manifest to the config, and which layers
belong to the image. What an image says of its architecture is a claim; its layers are looked at.

Blobs that no manifest of the index names are left over from earlier builds, and do not count.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc_hpo.preflight.finding import Finding, damaged, inner
from hpc_hpo.site.target import Target

INDEX, LAYOUT, DOCKER = "index.json", "oci-layout", "manifest.json"
#: A manifest or config is not larger than this, in bytes (the distribution specification asks
#: registries to take manifests of 4 MiB).
LARGEST_DOCUMENT = 4 << 20
_MAY_BE_LAYER = re.compile(r"(?:blobs/\w+/[0-9a-f]+|[0-9a-f]{64}(?:/layer)?\.tar)\Z")
_DIGEST = re.compile(r"(\w+):([0-9a-f]+)\Z")
_ATTESTATION = "vnd.docker.reference.type"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
#: An index names manifests; an index of indexes of indexes is nobody's image.
_DEEPEST = 4


@dataclass
class Layer:
    """One member that may be a layer: what is wrong inside it, and the names of its files."""

    findings: list[Finding] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


@dataclass
class Image:
    """Result of following an image's documents.

    Attributes:
        layers: paths of its layers, from the bottom up, without repetition.
        findings: what its documents themselves say.
    """

    layers: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def may_be_layer(name: str) -> bool:
    """Whether a tar's member may be an image's layer, by its name."""
    return _MAY_BE_LAYER.match(name) is not None


def may_be_document(name: str, head: bytes, size: int) -> bool:
    """Whether it may be one of an image's JSON documents."""
    named = name.startswith("blobs/") or (name.endswith(".json") and "/" not in name)
    return named and size <= LARGEST_DOCUMENT and head.lstrip()[:1] in (b"{", b"[")


def may_matter(name: str) -> bool:
    """Whether a member's name can say that its archive is an image, or stands in its documents."""
    return name == LAYOUT or ("/" not in name and name.endswith(".json")) or may_be_layer(name)


def is_image(documents: Mapping[str, bytes], names: Iterable[str]) -> bool:
    """Whether an archive with these members is an image."""
    plain = set(names)
    if INDEX in documents and LAYOUT in plain:
        return True
    parsed = _parse(documents.get(DOCKER))
    return isinstance(parsed, list) and all(isinstance(e, dict) and "Config" in e for e in parsed)


def follow(documents: Mapping[str, bytes], names: set[str], where: str, target: Target) -> Image:
    """From the index, or a docker archive's manifest, to configs and layers.

    Args:
        documents: path -> content.
        names: all paths that are there.
        where: the image's place.
    """
    image = Image()
    reader = _Reader(documents, names, where, target, image)
    try:
        if INDEX in documents:
            reader.index(INDEX, 0)
        if DOCKER in documents:
            reader.docker()
    # Documents can be any JSON: a list where an object belongs, a number for a digest.
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        image.findings.append(damaged(where, "image", f"odd documents: {error!r}"))
    image.layers = list(dict.fromkeys(image.layers))
    image.findings = list(dict.fromkeys(image.findings))
    return image


def _parse(raw: bytes | None) -> Any:
    try:
        return None if raw is None else json.loads(raw)
    except ValueError:
        return None


class _Reader:
    def __init__(
        self, documents: Mapping[str, bytes], names: set[str], where: str, target: Target,
        image: Image,
    ) -> None:  # fmt: skip
        self._documents, self._names, self._where = documents, names, where
        self._target, self._image = target, image

    def _add(self, finding: Finding) -> None:
        self._image.findings.append(finding)

    def _document(self, path: str) -> dict[str, Any] | None:
        raw = self._documents.get(path)
        place = inner(self._where, path)
        if raw is None:
            self._missing(path)
            return None
        digest = path.removeprefix("blobs/").partition("/")
        if digest[0] == "sha256" and hashlib.sha256(raw).hexdigest() != digest[2]:
            self._add(damaged(place, "image", "its content is not that of its digest"))
        found = _parse(raw)
        if not isinstance(found, dict):
            self._add(damaged(place, "image", "no JSON object"))
            return None
        return found

    def _missing(self, path: str) -> None:
        if path not in self._names:
            self._add(damaged(self._where, "image", f"{path} is missing"))
        else:
            self._add(damaged(inner(self._where, path), "image", "no JSON document"))

    def index(self, path: str, depth: int) -> None:
        """All that an index names for the target's architecture."""
        found = self._document(path)
        if found is None or depth > _DEEPEST:
            return
        others, taken = [], 0
        for entry in found.get("manifests", []):
            platform = entry.get("platform") or {}
            stated = platform.get("architecture")
            if _ATTESTATION in (entry.get("annotations") or {}) or stated == "unknown":
                continue
            if stated is not None and self._wrong(stated):
                others.append(str(stated))
                continue
            taken += 1
            blob = _blob(entry["digest"])
            if "index" in entry.get("mediaType", "") or "list" in entry.get("mediaType", ""):
                self.index(blob, depth + 1)
            else:
                self.manifest(blob)
        if others and not taken:
            self._claims(path, " and ".join(sorted(set(others))))
        elif not taken:
            self._add(damaged(inner(self._where, path), "image", "its index names no image"))

    def manifest(self, path: str) -> None:
        found = self._document(path)
        if found is None:
            return
        self._config(_blob(found["config"]["digest"]))
        for layer in found.get("layers", []):
            self._layer(_blob(layer["digest"]))

    def docker(self) -> None:
        """A docker archive's manifest."""
        for entry in _parse(self._documents[DOCKER]) or []:
            self._config(entry["Config"])
            for layer in entry.get("Layers") or []:
                self._layer(layer)

    def _config(self, path: str) -> None:
        found = self._document(posixpath.normpath(path))
        if found is None:
            return
        stated = found.get("architecture")
        if stated is None:
            self._add(
                Finding(
                    inner(self._where, path), "a config without an architecture",
                    self._needed(), "build the image again", "warning", "image",
                )
            )  # fmt: skip
        elif self._wrong(stated):
            self._claims(path, str(stated))

    def _layer(self, path: str) -> None:
        path = posixpath.normpath(path)
        if path in self._names:
            self._image.layers.append(path)
        else:
            self._missing(path)

    def _wrong(self, stated: object) -> bool:
        return self._target.arch is not None and stated != self._target.arch.oci

    def _needed(self) -> str:
        return self._target.arch.oci if self._target.arch else self._target.arch_name

    def _claims(self, path: str, stated: str) -> None:
        needed = self._needed()
        self._add(
            Finding(
                inner(self._where, path), f"an image for {stated}", needed,
                f"build or pull it with --platform linux/{needed}", kind="image",
            )
        )  # fmt: skip


def _blob(digest: str) -> str:
    match = _DIGEST.match(digest)
    if match is None:
        raise ValueError(f"{digest!r} is no digest")
    return f"blobs/{match[1]}/{match[2]}"


def visible(layers: list[Layer], places: list[str]) -> Iterator[Finding]:
    """Findings about files that no layer above replaces or removes.

    Args:
        layers: from the bottom up.
        places: `where` of each.
    """
    for number, (layer, place) in enumerate(zip(layers, places, strict=True)):
        above = [upper.names for upper in layers[number + 1 :]]
        for finding in layer.findings:
            path = finding.where.removeprefix(f"{place}!").partition("!")[0]
            if not any(_hidden(path, names) for names in above):
                yield finding


def _hidden(path: str, names: set[str]) -> bool:
    if path in names:
        return True
    while path:
        folder, _, base = path.rpartition("/")
        lead = f"{folder}/" if folder else ""
        if f"{lead}{_WHITEOUT}{base}" in names or f"{lead}{_OPAQUE}" in names:
            return True
        path = folder
    return False
