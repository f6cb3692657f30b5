"""The files a FastCaloGAN is trained on: showers in voxels, and which voxels there are.

``binning.xml`` says how each calorimeter layer is cut into voxels: rings in r (mm) about the
shower's axis, and sectors in the angle alpha. Two forms of it are public and both are read: the
CaloChallenge's (``Bins/Bin/Layer``, github.com/CaloChallenge/homepage) and that of FastCaloGAN
itself (``Bins/Particle/Bin/Layer``).

A file of showers is a tar such as ``pid22_eta_0_5.v02.tar`` with one CSV file for each momentum in
MeV, ``pid22_E65536_eta_0_5_voxalisation.csv``. It has no header; its columns are phi within a
calorimeter cell, eta, and the energies of all voxels in MeV: by layer, within a layer by ring,
within a ring by sector. An empty cell is 0. (The ATLAS open data, record 15012 of
opendata.cern.ch, and FastCaloGAN's reader of them have this layout.)
"""

from __future__ import annotations

import io
import math
import os
import re
import tarfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

Array = np.ndarray[Any, Any]

#: Columns of a CSV file ahead of the voxels: phi and eta.
AHEAD = 2
_MEMBER = re.compile(r"(?:.*/)?pid(\d+)_E(\d+)_eta_(\d+)_(\d+)(?:_[A-Za-z]+)?\.csv")


class DataError(ValueError):
    """A data file that cannot be used; the message names it, the line, and what is wrong."""


@dataclass(frozen=True)
class Layer:
    """A calorimeter layer that has voxels.

    Args:
        id: ATLAS's number: 0 presampler, 1 to 3 the liquid argon barrel, 12 to 14 the tiles.
        r_edges: borders of the rings, mm, rising.
        sectors: of each ring the number of its sectors in alpha.
    """

    id: int
    r_edges: tuple[float, ...]
    sectors: tuple[int, ...]

    @property
    def voxels(self) -> int:
        """How many there are."""
        return sum(self.sectors)


@dataclass(frozen=True)
class Binning:
    """The voxels of one particle in one slice of eta."""

    pid: int
    layers: tuple[Layer, ...]

    @property
    def voxels(self) -> int:
        """How many all layers have together."""
        return sum(layer.voxels for layer in self.layers)

    def columns(self) -> list[slice]:
        """Of each layer the columns that are its voxels, in an array of voxels alone."""
        ends = np.cumsum([0, *(layer.voxels for layer in self.layers)])
        return [slice(int(low), int(high)) for low, high in pairwise(ends)]


@dataclass(frozen=True)
class Showers:
    """What a tar holds.

    Args:
        pid: the particle by its number in the PDG's scheme.
        eta: the slice, (low, high) in hundredths.
        momenta: (k,) in MeV, rising.
        energies: k arrays (events, voxels) in MeV, float32.
    """

    pid: int
    eta: tuple[int, int]
    momenta: Array
    energies: list[Array]


@dataclass
class _Node:
    tag: str
    line: int
    attributes: dict[str, str]
    parent: _Node | None
    children: list[_Node] = field(default_factory=list)


def _read_xml(path: Path) -> _Node:
    """The root element; unlike ElementTree's, elements know their lines.

    Raises:
        DataError: the file cannot be read, or is not XML.
    """
    parser = expat.ParserCreate()
    top = _Node("", 0, {}, None)
    open_nodes = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        node = _Node(tag, parser.CurrentLineNumber, attributes, open_nodes[-1])
        open_nodes[-1].children.append(node)
        open_nodes.append(node)

    def end(tag: str) -> None:
        open_nodes.pop()

    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except expat.ExpatError as error:
        raise DataError(f"{path}:{error.lineno}: not XML: {error}") from error
    return top.children[0]


def _number(path: Path, node: _Node, name: str, default: int | None = None) -> int:
    text = node.attributes.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text if text is not None else "")
    except ValueError:
        raise DataError(
            f"{path}:{node.line}: {node.tag} needs the attribute {name}, a whole number; "
            f"found {text!r}"
        ) from None


def _rings(path: Path, node: _Node) -> tuple[float, ...]:
    """The borders of a layer's rings; a single border means that it has none."""
    if "r_edges" in node.attributes:
        text = node.attributes["r_edges"]
        try:
            edges = tuple(float(part) for part in text.split(","))
        except ValueError:
            edges = ()
        if not edges or not all(low < high for low, high in pairwise((-1.0, *edges))):
            raise DataError(
                f"{path}:{node.line}: r_edges must be rising numbers from 0 on, in mm, with "
                f"commas between them; found {text!r}"
            )
        return edges
    count, low, high = (_number(path, node, name) for name in ("nbins", "r_min", "r_max"))
    return tuple(float(edge) for edge in np.linspace(low, high, count + 1))


def _sectors_of_rings(edges: tuple[float, ...], half: bool) -> list[int]:
    """FastCaloGAN's "optimised" sectors: 4, 8, 16 or 32, so that voxels are about square."""
    counts = []
    for low, high in pairwise(edges):
        ratio = (low + high) / 2 * (1 if half else 2) * math.pi / (high - low)
        counts.append(next((n for n in (4, 8, 16) if ratio < n), 32))
    return counts


def _layer(path: Path, node: _Node, root: _Node, half: bool) -> Layer:
    edges = _rings(path, node)
    count = _number(path, node, "n_bin_alpha")
    if count < 1:
        raise DataError(f"{path}:{node.line}: n_bin_alpha must be at least 1; found {count}")
    sectors = [count] * (len(edges) - 1)
    if root.attributes.get("optimisedAlphaBins") == "true" and count > 1:
        sectors = _sectors_of_rings(edges, half)
    if root.attributes.get("mergeAlphaBinsInFirstRBin") == "true" and sectors:
        sectors[0] = 1
    return Layer(_number(path, node, "id"), edges, tuple(sectors))


def load_binning(path: Path, pid: int, eta: tuple[int, int]) -> Binning:
    """The voxels of a particle in a slice of eta, (low, high) in hundredths.

    Raises:
        DataError: the file cannot be used, or has nothing for them.
    """
    root = _read_xml(path)
    if root.attributes.get("isPolar", "true") != "true":
        raise DataError(f'{path}:{root.line}: isPolar must be "true": voxels are in r and alpha')
    known = []
    regions = [b for p in root.children for b in [p, *p.children] if b.tag == "Bin"]
    for region in regions:
        holder = region if "pid" in region.attributes else region.parent
        assert holder is not None
        number = _number(path, holder, "pid")
        low, high = (
            _number(path, region, name, default)
            for name, default in (("etaMin", 0), ("etaMax", 500))
        )
        known.append(f"pid {number} in eta {low} to {high}")
        if number == pid and low <= eta[0] and eta[1] <= high:
            half = holder.attributes.get("symmetriseAlpha") == "true"
            nodes = [node for node in region.children if node.tag == "Layer"]
            layers = tuple(_layer(path, node, root, half) for node in nodes)
            found = Binning(pid, tuple(layer for layer in layers if layer.voxels))
            if not found.voxels:
                raise DataError(f"{path}:{region.line}: none of its layers has a voxel")
            return found
    raise DataError(
        f"{path}: has no Bin for pid {pid} in eta {eta[0]} to {eta[1]} (hundredths); "
        f"it has {', '.join(known) or 'none at all'}"
    )


def parse_csv(text: bytes, name: str, columns: int) -> Array:
    """The numbers of a CSV file without a header, float64 (lines, columns).

    Args:
        name: of the file, for messages.
        columns: how many each line must have.

    Raises:
        DataError: with the line, when one has another number of columns or holds no number.
    """
    if not text.strip():
        raise DataError(f"{name}: is empty")
    try:
        found = np.loadtxt(io.BytesIO(text), delimiter=",", ndmin=2, comments=None)
    except ValueError:
        found = np.empty((0, 0))  # an empty cell, or a mistake: looked at line by line
    if found.shape[1] != columns or not np.isfinite(found).all():
        lines = text.decode("utf-8", "replace").splitlines()
        rows = [_parse_line(line, f"{name}:{i}", columns) for i, line in enumerate(lines, 1)]
        found = np.array(rows, dtype=np.float64)
    return found


def _parse_line(line: str, where: str, columns: int) -> list[float]:
    cells = line.split(",")
    if len(cells) != columns:
        raise DataError(
            f"{where}: has {len(cells)} columns; binning.xml has {columns - AHEAD} voxels, "
            f"which with phi and eta makes {columns}"
        )
    row = []
    for number, cell in enumerate(cells, 1):
        try:
            row.append(float(cell) if cell.strip() else 0.0)
        except ValueError:
            row.append(math.nan)
        if not math.isfinite(row[-1]):
            raise DataError(f"{where}: column {number} is not a number: {cell.strip()[:40]!r}")
    return row


def read_showers(path: Path, binning: Path) -> tuple[Showers, Binning]:
    """All showers of a tar, with the voxels that binning.xml has for them.

    Raises:
        DataError: either file cannot be used; it is named, with the line where there is one.
    """
    voxels: Binning | None = None
    samples: dict[int, Array] = {}
    kinds: set[tuple[int, int, int]] = set()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                match = _MEMBER.fullmatch(member.name)
                if match is None or not member.isfile():
                    continue
                pid, momentum, low, high = map(int, match.groups())
                kinds.add((pid, low, high))
                if len(kinds) > 1:
                    raise DataError(f"{path}: holds more than one particle or slice: {kinds}")
                voxels = voxels or load_binning(binning, pid, (low, high))
                stream = tar.extractfile(member)
                assert stream is not None
                table = parse_csv(stream.read(), f"{path}:{member.name}", AHEAD + voxels.voxels)
                samples[momentum] = table[:, AHEAD:].astype(np.float32)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as a tar file: {error}") from error
    if voxels is None:
        raise DataError(
            f"{path}: holds no file whose name is like pid22_E65536_eta_0_5_voxalisation.csv"
        )
    pid, low, high = next(iter(kinds))
    momenta = sorted(samples)
    showers = Showers(pid, (low, high), np.array(momenta), [samples[p] for p in momenta])
    return showers, voxels


def tar_name(pid: int, eta: tuple[int, int]) -> str:
    """``pid22_eta_0_5.v02.tar``"""
    return f"pid{pid}_eta_{eta[0]}_{eta[1]}.v02.tar"


def csv_name(pid: int, eta: tuple[int, int], momentum: int) -> str:
    """``pid22_E65536_eta_0_5_voxalisation.csv``"""
    return f"pid{pid}_E{momentum}_eta_{eta[0]}_{eta[1]}_voxalisation.csv"


def write_showers(folder: Path, pid: int, eta: tuple[int, int], tables: dict[int, Array]) -> Path:
    """Write a tar, whole or not at all.

    Args:
        tables: momentum in MeV -> (events, 2 + voxels): phi, eta, energies in MeV.

    Returns:
        Its path. The same tables give the same bytes.
    """
    path = folder / tar_name(pid, eta)
    temporary = folder / f".{os.getpid()}.{path.name}"
    try:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for momentum, table in sorted(tables.items()):
                text = io.BytesIO()
                np.savetxt(text, table, fmt="%.6g", delimiter=",")
                info = tarfile.TarInfo(csv_name(pid, eta, momentum))
                info.size = text.tell()
                text.seek(0)
                tar.addfile(info, text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
