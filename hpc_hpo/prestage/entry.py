"""Bringing one file of an input into the study folder, and opening archives."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hpc_hpo.archives import check_archive
from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import sha256_of, storage_error
from hpc_hpo.prestage import remote
from hpc_hpo.prestage.copying import copy_hashed, link
from hpc_hpo.prestage.fetch import Download, FetchError, Patience, WrongContent
from hpc_hpo.prestage.manifest import Manifest, StagedFile
from hpc_hpo.prestage.sources import Found, Source, file_name, find, home_of
from hpc_hpo.prestage.store import Store, Stored, without_password
from hpc_hpo.study import Input, Study


class SourceChanged(InputError):
    """A source is no longer what was staged, and the study's trials have used that."""


class Events:
    """What happens while inputs are staged; the methods are called from several threads."""

    def expect(self, size: int) -> None:
        """So many bytes more are to be brought."""

    def advance(self, name: str, size: int) -> None:
        """So many bytes of this file have come; negative: are thrown away."""

    def staged(self, spec: Input, size: int) -> None:
        """An input is complete."""

    def failed(self, spec: Input, problem: str) -> None:
        """An input cannot be staged."""

    def changed(self, spec: Input, what: str) -> None:
        """A source is not what it was when it was staged before, and is taken as it is now."""


@dataclass
class Entry:
    """A staged input: the path that trials get, below the study folder, and its files."""

    path: str
    files: list[StagedFile] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @staticmethod
    def of(manifest: Manifest) -> dict[tuple[str | None, str], Entry]:
        """The entries of a manifest by segment and name."""
        found: dict[tuple[str | None, str], Entry] = {}
        found.update({(None, name): Entry(path) for name, path in manifest.paths.items()})
        for segment, paths in manifest.segments.items():
            found.update({(segment, name): Entry(path) for name, path in paths.items()})
        for file in manifest.files:
            if entry := found.get((file.segment, file.input)):
                entry.files.append(file)
        return found


def archive_home(spec: Input) -> str:
    """The folder of an archive that is unpacked, beside that of its content."""
    return f"{home_of(spec)}.archive"


class Bringer:
    """Brings files. Its methods are called in threads, several at one time.

    Args:
        known: what was staged before, by target.
        update: whether a changed source is taken as it is now.
    """

    def __init__(
        self, folder: StudyFolder, store: Store, known: dict[str, StagedFile], update: bool,
        events: Events, patience: Patience, now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._folder, self._store, self._known = folder, store, known
        self._update, self._events = update, events
        self._patience, self._now = patience, now
        self._stopped = False

    def stop(self) -> None:
        """End running downloads where they are."""
        self._stopped = True

    # -- looking -------------------------------------------------------------------

    def look(self, study: Study, spec: Input) -> Found:
        """As sources.find, tried again where the network fails; a content that the study names
        and the store has needs no network."""
        if spec.remote and spec.sha256 is not None and self._store.holds(spec.sha256):
            size = self._store.object(spec.sha256).stat().st_size
            return Found(True, [Source(spec.source, file_name(spec), size)])
        tried = 0
        while True:
            try:
                return find(study, spec)
            except (InputError, OSError) as error:
                if not spec.remote or isinstance(error, InputError) or remote.permanent(error):
                    raise
                failure: Exception = error
            except Exception as error:
                if remote.permanent(error):
                    raise
                failure = error
            tried += 1
            if tried >= self._patience.tries or self._stopped:
                shown = without_password(spec.source)
                raise FetchError(
                    f"{shown}: {remote.explain(failure)}; given up after {tried} tries"
                ) from None
            self._patience.wait(tried)

    def missing(self, spec: Input, found: Found) -> int:
        """Bytes that are not in place yet, as far as they are known."""
        home = self._home(spec, found)
        return sum(s.size or 0 for s in found.files if self._same(spec, s, home) is None)

    def opens(self, spec: Input, found: Found) -> bool:
        """Whether trials get the content of an archive. One that is node-local stays as it is
        here, and is unpacked on each node."""
        return spec.archive and found.single and not spec.node_local

    def _home(self, spec: Input, found: Found) -> str:
        return archive_home(spec) if self.opens(spec, found) else home_of(spec)

    def prepare(self, spec: Input, found: Found) -> Entry:
        """The input's folders, made; and the entry to fill."""
        home = self._home(spec, found)
        place = self._folder.path / home
        try:
            if place.is_symlink():
                place.unlink()  # it was an unpacked archive before
            place.mkdir(parents=True, exist_ok=True)
            for inner in {os.path.dirname(source.inner) for source in found.files}:
                (place / inner).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(place, error) from error
        return Entry(f"{home}/{found.files[0].inner}" if found.single else home)

    # -- files ---------------------------------------------------------------------

    def _same(self, spec: Input, source: Source, home: str) -> StagedFile | None:
        """The record of a file that is in place and need not be brought again."""
        known = self._known.get(f"{home}/{source.inner}")
        if known is None or known.mode != spec.mode or known.segment != spec.segment:
            return None
        if spec.sha256 not in (None, known.sha256):
            return None
        if spec.remote:
            told = source.validator is not None and known.validator == source.validator
            same = known.source == self._shown(source) and (told or spec.sha256 is not None)
        else:
            state = (source.place, source.size, source.mtime_ns)
            same = (known.source, known.size, known.mtime_ns) == state
        if not same:
            return None
        try:
            stat = os.stat(self._folder.path / known.target)
        except OSError:
            return None
        here = (stat.st_size, stat.st_mtime_ns) == (known.size, known.mtime_ns)
        return known if here else None

    @staticmethod
    def _shown(source: Source) -> str:
        return without_password(source.place)

    def bring(self, spec: Input, found: Found, source: Source) -> StagedFile:
        """Bring one file to its place, unless it is there.

        Raises:
            InputError, FetchError: it cannot be had, or is not what it should be.
            StorageError: there is no room.
        """
        home = self._home(spec, found)
        target = f"{home}/{source.inner}"
        same = self._same(spec, source, home)
        if same is not None:
            return same
        path = self._folder.path / target
        shown = self._shown(source)
        known = self._known.get(target)

        def accept(sha256: str) -> None:
            if spec.sha256 not in (None, sha256):
                raise InputError(
                    f"{spec.label()}: {shown}: its sha256 is {sha256}, not the study's "
                    f"{spec.sha256}"
                )
            if known is None or known.sha256 == sha256 or known.source != shown:
                return
            if not self._update:
                raise SourceChanged(
                    f"{spec.label()}: {shown} has changed since it was staged on "
                    f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(known.staged_at))}, and "
                    f"trials have used it (sha256 {known.sha256[:12]}... then, {sha256[:12]}... "
                    "now). Take the change back; or `hpc-hpo prestage --update` takes it as it is"
                )
            self._events.changed(spec, shown)

        def advance(size: int) -> None:
            self._events.advance(source.inner, size)

        if spec.remote:
            stored = self._fetch(spec, source, shown, advance)
            accept(stored.sha256)
            kept = self._store.object(stored.sha256)
            if spec.mode == "copy":
                copy_hashed(kept, path)
            else:
                link(kept, path, hard=True)
            stat, sha256, validator = path.stat(), stored.sha256, stored.validator
        elif spec.mode == "copy" and not self.opens(spec, found):
            sha256, stat = copy_hashed(source.place, path, advance, accept)
            validator = None
        else:
            stat, sha256, validator = os.stat(source.place), sha256_of(Path(source.place)), None
            advance(stat.st_size)
            accept(sha256)
            link(source.place, path)
        return StagedFile(
            spec.name, shown, target, stat.st_size, stat.st_mtime_ns, sha256, spec.mode,
            self._now(), spec.segment, validator,
        )  # fmt: skip

    def _fetch(
        self, spec: Input, source: Source, shown: str, advance: Callable[[int], object]
    ) -> Stored:
        if spec.sha256 is not None and self._store.holds(spec.sha256, source.size):
            size = self._store.object(spec.sha256).stat().st_size
            advance(size)
            return Stored(spec.sha256, size, source.validator)
        self._store.require_room(source.size or 0)
        system, _ = remote.open_system(spec.source, spec.options)
        key = Store.key(f"{spec.source} {source.inner}", spec.options)
        download = Download(
            self._store, system, source, shown, key, spec.sha256, self._patience, advance,
            lambda: self._stopped,
        )  # fmt: skip
        try:
            return download.run()
        except WrongContent as error:
            raise InputError(f"{spec.label()}: {error}") from None

    # -- archives ------------------------------------------------------------------

    def open(self, spec: Input, found: Found, entry: Entry) -> Entry:
        """Unpack an input's archive in the store, and link what is in it into the study; or see
        that the nodes will be able to unpack it.

        Raises:
            InputError: it may not be unpacked; the member is named.
            StorageError: there is no room.
        """
        (archive,) = entry.files
        path = self._folder.path / archive.target
        try:
            if not self.opens(spec, found):
                if self._known.get(archive.target) != archive:
                    check_archive(path)
                return entry
            environment = spec.kind == "environment"
            tree = Store.tree_name(archive.sha256, environment)
            members = self._store.unpack(path, tree, environment=environment)
        except InputError as error:
            raise InputError(f"{spec.label()}: {archive.source}: {error.problem}") from None
        home = home_of(spec)
        place = self._folder.path / home
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        link(self._store.tree(tree), place)
        files = [
            StagedFile(
                spec.name, f"{archive.source}!{m.path}", f"{home}/{m.path}", m.size, m.mtime_ns,
                m.sha256, spec.mode, archive.staged_at, spec.segment,
            )
            for m in members
        ]  # fmt: skip
        return Entry(home, [archive, *files])


def remove_stale(before: Manifest, now: Manifest, folder: StudyFolder) -> None:
    """Remove what an earlier manifest held and this one does not; and folders that this empties.

    What lies behind a link is another's: the link is removed.
    """
    kept = {file.target for file in now.files}
    _remove(folder.path, (file.target for file in before.files if file.target not in kept), kept)


def _remove(root: Path, targets: Iterable[str], kept: set[str]) -> None:
    homes: set[Path] = set()
    for target in targets:
        parts = target.split("/")
        above = [root.joinpath(*parts[:n]) for n in range(1, len(parts))]
        linked = next((place for place in above if place.is_symlink()), None)
        if linked is None:
            (root / target).unlink(missing_ok=True)
            homes.update(above[1:])
        elif not any(k.startswith(f"{linked.relative_to(root).as_posix()}/") for k in kept):
            linked.unlink()
    for place in sorted(homes, key=lambda p: len(p.parts), reverse=True):
        with contextlib.suppress(OSError):
            place.rmdir()  # only where nothing else is in it
