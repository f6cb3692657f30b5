"""Writing records into a store of MLflow, through MLflow's own client and nothing else.

Nothing goes over a network: the store is on a disk, and MLflow's telemetry is switched off before
MLflow is imported.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from hpc_hpo.errors import HpoError, InputError, StorageError, StudyHeld
from hpc_hpo.fsio import fsync_dir, storage_error
from hpc_hpo.optimizers.extras import require
from hpc_hpo.results.mlflow.records import BEGAN, NAME, OWN, PARENT, TRIAL, WRITTEN, Record
from hpc_hpo.study.stores import Store

#: Identifies a run of a payload's own within its trial.
PAYLOAD = OWN + "payload"
#: Who wrote last; another's runs have to be looked up.
WRITER = OWN + "writer"
#: MLflow's limits of one batch.
_METRICS, _FEW = 1000, 100
_PAGE = 1000
#: How long another writer is waited for, in seconds.
LOCK_S = 60.0

#: A run within a study: the number of a trial or "", and the id of a payload's own run or "".
Key = tuple[str, str]
STUDY: Key = ("", "")


@dataclass
class _Known:
    """A run that is in the store; `logged` is None until its metrics' histories were read."""

    id: str
    written: str = ""
    status: str = "RUNNING"
    params: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    logged: set[tuple[str, int, str]] | None = None


class RunStore:
    """The runs of one study in a store. Used by one thread, inside `open_for_writing`.

    Args:
        store: where.
        title: name of the experiment.
        began: tells this study from all others, see records.BEGAN.
    """

    def __init__(self, store: Store, title: str, began: str) -> None:
        self._store, self._title, self._began = store, title, began
        self._token = uuid.uuid4().hex
        self._known: dict[Key, _Known] = {}
        self._experiment = ""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
        self._mlflow = mlflow = require("mlflow", "mlflow")
        self._entities = require("mlflow.entities", "mlflow")
        for name in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._error = mlflow.exceptions.MlflowException
        self._errors: tuple[Any, ...] = (self._error,)
        if not store.files:
            # Some errors of the database come through as they are.
            require("alembic", "mlflow")
            self._errors += (require("sqlalchemy.exc", "mlflow").SQLAlchemyError,)
        self._client: Any = None

    @contextmanager
    def open_for_writing(self) -> Iterator[None]:
        """Hold the store's lock, and know which runs are there.

        Raises:
            StudyHeld: another process has been writing for LOCK_S.
            StorageError: the store cannot be read or written.
            InputError: it is there and is not what MLflow takes.
        """
        try:
            self._store.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self._store.lock, timeout=LOCK_S)
            lock.acquire()
        except filelock.Timeout:
            raise StudyHeld(
                f"{self._store.place}: another process is writing to this store; try again later"
            ) from None
        except OSError as error:
            raise storage_error(self._store.lock, error) from error
        try:
            fresh = not (self._store.files or self._store.place.exists())
            with self._mlflow_errors(), unsynced(self._store.place) if fresh else nullcontext():
                self._look()
                yield
        finally:
            lock.release()

    @contextmanager
    def _mlflow_errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            text = str(error).splitlines()[0]
            if "out-of-date database schema" in text:
                raise InputError(
                    "was made by another version of MLflow", file=str(self._store.place),
                    valid=f"a new one, or: mlflow db upgrade {self._store.uri}",
                ) from error  # fmt: skip
            raise StorageError(f"{self._store.place}: MLflow could not write: {text}") from error
        except OSError as error:
            raise storage_error(self._store.place, error) from error

    def _look(self) -> None:
        if self._client is None:
            self._client = self._connect()
            self._experiment = self._find_experiment()
        ours = self._known.get(STUDY)
        if ours is not None:
            tags = self._client.get_run(ours.id).data.tags
            if tags.get(WRITER) == self._token:
                return
        self._known = dict(self._find_runs())
        if STUDY in self._known:
            self._client.set_tag(self._known[STUDY].id, WRITER, self._token)

    def _connect(self) -> Any:
        """A client. Newer versions of MLflow open stores of files only for those who insist."""
        name = "MLFLOW_ALLOW_FILE_STORE"
        before = os.environ.get(name)
        if self._store.files:
            os.environ[name] = "true"
        try:
            client = self._mlflow.MlflowClient(tracking_uri=self._store.uri)
            client.search_experiments(max_results=1)  # the store is opened when first used
        finally:
            if self._store.files:
                os.environ.pop(name, None) if before is None else os.environ.update({name: before})
        return client

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._title)
        if found is None:
            home = self._store.artifacts
            place = None if home is None else (home / self._title).as_uri()
            # MLflow's pages then begin with the table of runs, not with the traces of a chat.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(self._client.create_experiment(self._title, place, kind))
        if found.lifecycle_stage != "active":
            raise InputError(
                f"its experiment {self._title!r} was deleted in MLflow",
                file=str(self._store.place), valid="restore the experiment, or take another store",
            )  # fmt: skip
        return str(found.experiment_id)

    def _find_runs(self) -> Iterator[tuple[Key, _Known]]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`{BEGAN}` = '{self._began}'", max_results=_PAGE,
                page_token=token,
            )  # fmt: skip
            for run in page:
                tags = run.data.tags
                key = tags.get(TRIAL, ""), tags.get(PAYLOAD, "")
                yield key, _Known(
                    run.info.run_id, tags.get(WRITTEN, ""), run.info.status,
                    set(run.data.params), set(run.data.metrics),
                )  # fmt: skip
            token = page.token
            if not token:
                return

    def has(self, key: Key, written: str) -> bool:
        """Whether a run holds all that it was to hold, by its fingerprint."""
        return key in self._known and self._known[key].written == written

    def write(self, key: Key, record: Record, parent: Key | None, written: str) -> str:
        """Make a run, or add to it what it lacks. What it has is never written twice.

        Args:
            written: a fingerprint for `has`; "" where more belongs to it, see `mark`.

        Returns:
            "made" or "added".

        Raises:
            Refused: MLflow does not take it; others may fare better.
        """
        known = self._known.get(key)
        try:
            made = known is None
            if known is None:
                known = self._known[key] = self._make(key, record, parent)
            self._add(known, record, written)
        except self._error as error:
            if error.error_code == "INVALID_PARAMETER_VALUE":
                text = str(error).splitlines()[0]
                raise Refused(f"{record.name}: MLflow refuses it: {text}") from error
            raise
        return "made" if made else "added"

    def mark(self, key: Key, written: str) -> None:
        """Say that a run, with all that belongs to it, is written."""
        self._client.set_tag(self._known[key].id, WRITTEN, written)
        self._known[key].written = written

    def _make(self, key: Key, record: Record, parent: Key | None) -> _Known:
        tags = {BEGAN: self._began, NAME: record.name}
        tags |= {name: value for name, value in zip((TRIAL, PAYLOAD), key, strict=True) if value}
        if parent is None:
            tags[WRITER] = self._token
        else:
            tags[PARENT] = self._known[parent].id
        run = self._client.create_run(self._experiment, start_time=record.began, tags=tags)
        return _Known(run.info.run_id, logged=set())

    def _add(self, known: _Known, record: Record, written: str) -> None:
        """All that is new; the tag WRITTEN comes last, so that a write which is cut off goes on."""
        entities = self._entities
        if known.logged is None:
            known.logged = set(self._histories(known))
        fresh = [m for m in record.metrics if (m.key, m.step, repr(m.value)) not in known.logged]
        metrics = [entities.Metric(m.key, m.value, m.at, m.step) for m in fresh]
        params = [
            entities.Param(name, value)
            for name, value in record.params.items()
            if name not in known.params
        ]
        self._artifacts(known.id, record)
        if record.ended is not None:
            self._client.set_terminated(known.id, record.status, record.ended)
        elif record.status != known.status:
            self._client.update_run(known.id, status=record.status)
        tags = [entities.RunTag(name, value) for name, value in record.tags.items()]
        tags.append(entities.RunTag(WRITTEN, written))
        for some in _chunks(params, _FEW):
            if len(params) > _FEW:
                self._client.log_batch(known.id, params=some)
        params = params if len(params) <= _FEW else []
        most = _METRICS - 2 * _FEW
        for some in _chunks(metrics[most:], _METRICS):
            self._client.log_batch(known.id, metrics=some)
        for some in _chunks(tags[:-_FEW], _FEW):
            self._client.log_batch(known.id, tags=some)
        self._client.log_batch(known.id, metrics[:most], params, tags[-_FEW:])
        known.params |= set(record.params)
        known.keys |= {m.key for m in record.metrics}
        known.logged |= {(m.key, m.step, repr(m.value)) for m in fresh}
        if record.ended is not None:
            known.logged = None  # it is hardly asked for again
        known.status, known.written = record.status, written

    def _histories(self, known: _Known) -> Iterator[tuple[str, int, str]]:
        for key in known.keys:
            for metric in self._client.get_metric_history(known.id, key):
                yield key, metric.step, repr(metric.value)

    def _artifacts(self, run: str, record: Record) -> None:
        for name, text in record.texts.items():
            self._client.log_text(run, text, name)
        if record.artifacts is not None:
            self._client.log_artifacts(run, str(record.artifacts))
        if not record.files:
            return
        with tempfile.TemporaryDirectory(prefix="hpc-hpo-") as room:
            for name, path in record.files.items():
                # MLflow keeps a file under the name that it has.
                link = Path(room) / name
                link.symlink_to(path)
                self._client.log_artifact(run, str(link))


class Refused(HpoError):
    """MLflow does not take one run as it is."""


@contextmanager
def unsynced(database: Path) -> Iterator[None]:
    """Spare a new SQLite database its waits for the disk; it is synced once, at the end.

    What a power cut would spoil is a database that did not exist before and is made again by the
    same command. Processes may die at any moment.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    opened: list[sqlite3.Connection] = []

    def relax(connection: Any, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")
            opened.append(connection)

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)
        for connection in opened:
            with suppress(sqlite3.ProgrammingError):  # closed
                connection.execute("PRAGMA synchronous=FULL")
        if database.exists():
            fd = os.open(database, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            fsync_dir(database.parent)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def began_of(began: float | None, facts: Mapping[str, Any]) -> str:
    """What tells a study from others: when it began; of a journal without times, its name."""
    return repr(began) if began is not None else str(facts.get("name", "study"))
