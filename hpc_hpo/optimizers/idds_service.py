"""iDDS over http: the points of one workload, and their losses, by a courier in the background.

The service's own paths and answers (idds-server 2.6.21, idds/rest/v1/hyperparameteropt.py):

- ``GET /hpo/{workload}/null/null/New/null``: the points without a loss, as
  ``[{"id": "12", "parameters": {...} or [model_id, {...}], "loss": null}]``; with ``null`` in place
  of ``New`` all points. Ids are texts. Asking takes nothing away: a point is New until its
  loss has come.
- ``PUT /hpo/{workload}/null/{id}/{loss}``.

Both are done by a thread of its own, so that a service that is slow or away for an hour holds up
no trial. What fails is tried again, later and later.
"""

from __future__ import annotations

import json
import os
import random
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hpc_hpo.errors import HpoError, InputError

#: Shortest and longest time between two tries after a failure, in seconds.
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 300.0
TIMEOUT_S = 60.0
#: Answers that asking again does not change.
_LASTING = (400, 401, 403, 404, 405)
NEW, ALL = "New", "null"


class Record(NamedTuple):
    """A point as the service knows it."""

    id: str
    model: Any  #: of a segmented workload, the model's id; else None
    parameters: dict[str, Any]
    loss: float | None


@dataclass(frozen=True)
class Address:
    """Where a workload is, and how one is known there.

    Attributes:
        host: as in https://iddsserver.cern.ch:443/idds.
        token_file: holds an OIDC token; read for every request, for tokens are renewed.
        vo: the organisation that goes with the token.
        proxy: an X.509 proxy, which is certificate and key in one file.
        ca: certificates that the server's own is held against, if not the system's.
    """

    host: str
    workload: str
    token_file: str | None = None
    vo: str = "atlas"
    proxy: str | None = None
    ca: str | None = None


class ServiceError(HpoError):
    """The service did not answer, or refused."""

    def __init__(self, text: str, transient: bool) -> None:
        super().__init__(text)
        self.transient = transient


class Client:
    """One request at a time.

    Args:
        timeout_s: of each request.
    """

    def __init__(self, address: Address, timeout_s: float = TIMEOUT_S) -> None:
        self.address, self._timeout = address, timeout_s
        self._base = (
            f"{address.host.rstrip('/')}/hpo/{urllib.parse.quote(address.workload, '')}/null"
        )

    def points(self, status: str) -> list[Record]:
        """The points of this status: NEW or ALL.

        Raises:
            ServiceError: no answer, or one that is none.
        """
        url = f"{self._base}/null/{status}/null"
        answer = self._call("GET", url)
        if not isinstance(answer, list):
            raise ServiceError(f"{url}: answered {str(answer)[:200]}, not a list of points", True)
        try:
            return [_record(entry) for entry in answer]
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError(f"{url}: answered with what is no point: {error}", False) from None

    def tell(self, number: str, loss: float) -> None:
        """Give the loss of a point.

        Raises:
            ServiceError: it was not taken.
        """
        url = f"{self._base}/{urllib.parse.quote(number, '')}/{loss!r}"
        answer = self._call("PUT", url)
        if not isinstance(answer, dict) or answer.get("status") != 0:
            raise ServiceError(f"{url}: answered {str(answer)[:200]}, not status 0", True)

    def _call(self, method: str, url: str) -> Any:
        request = urllib.request.Request(url, method=method, headers=self._headers())
        try:
            with urllib.request.urlopen(
                request, timeout=self._timeout, context=self._context(url)
            ) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                why = error.headers.get("ExceptionMessage") or error.reason
            lasting = error.code in _LASTING
            raise ServiceError(f"{url}: {error.code} {why}", not lasting) from None
        except (OSError, ValueError) as error:  # no connection, timeout, half an answer
            reason = getattr(error, "reason", error)
            raise ServiceError(f"{url}: {reason}", True) from None

    def _headers(self) -> dict[str, str]:
        address = self.address
        if address.token_file is None:
            return {"X-IDDS-Auth-Type": "x509_proxy"}
        try:
            with open(address.token_file) as stream:
                token = stream.read().strip()
        except OSError as error:
            raise ServiceError(f"{address.token_file}: {error.strerror}", True) from None
        return {
            "X-IDDS-Auth-Type": "oidc",
            "X-IDDS-Auth-VO": address.vo,
            "X-IDDS-Auth-Token": token,
        }

    def _context(self, url: str) -> ssl.SSLContext | None:
        if not url.startswith("https:"):
            return None
        context = ssl.create_default_context(cafile=self.address.ca)
        if self.address.proxy is not None:
            context.load_cert_chain(self.address.proxy)
        return context


def _record(entry: Mapping[str, Any]) -> Record:
    parameters, model = entry["parameters"], None
    if isinstance(parameters, list):
        model, parameters = parameters
    if not isinstance(parameters, dict):
        raise ValueError(f"its parameters are {parameters!r}")
    return Record(str(entry["id"]), model, parameters, entry.get("loss"))


@dataclass
class Service:
    """A workload seen through a courier: what it last said, and what it is still to be told.

    Attributes:
        records: all points that were ever seen, by their id.
        version: grows whenever they change.
        problem: why nothing more can come or go; None while it can.
        trouble: the last failure that may pass; None after a success.
    """

    client: Client
    poll_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    records: dict[str, Record] = field(default_factory=dict)
    version: int = 0
    problem: ServiceError | None = None
    trouble: ServiceError | None = None
    known: bool = False  #: whether all points were asked for once

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._outbox: deque[tuple[str, float]] = deque()
        self._queued: set[str] = set()
        self._wanted = False
        self._next_look = float("-inf")
        self._thread: threading.Thread | None = None

    def want(self) -> None:
        """Have the courier ask for new points, at most every poll_s seconds. Returns at once."""
        with self._changed:
            if self.clock() >= self._next_look:
                self._wanted = True
                self._start()

    def tell(self, number: str, loss: float) -> None:
        """Have the courier deliver a loss, once. Returns at once."""
        with self._changed:
            if number not in self._queued:
                self._queued.add(number)
                self._outbox.append((number, loss))
                self._start()

    def undelivered(self) -> int:
        """Losses that the service does not have yet."""
        with self._changed:
            return len(self._outbox)

    def wait_delivered(self, seconds: float) -> bool:
        """Wait until everything has been delivered; False when the time was too short."""
        with self._changed:
            return (
                self._changed.wait_for(
                    lambda: not self._outbox or self.problem is not None, seconds
                )
                and not self._outbox
            )

    def wait_known(self, seconds: float) -> bool:
        """Wait until all points have been asked for once; False when the time was too short."""
        with self._changed:
            self._start()
            self._changed.wait_for(lambda: self.known or self.problem is not None, seconds)
            return self.known

    # ---------------------------------------------------------------- the courier

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            # A daemon: the process may end although the service does not answer.
            self._thread = threading.Thread(target=self._run, name="idds", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        pause = FIRST_RETRY_S
        while self.problem is None:
            with self._changed:
                idle = not self._changed.wait_for(self._has_work, self.poll_s)
                if idle:
                    self._thread = None
                    return
            try:
                self._work()
            except ServiceError as error:
                with self._changed:
                    self.trouble = error
                    if not error.transient:
                        self.problem = error
                        self._changed.notify_all()
                # Not all studies of a site may come back at the same moment.
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LAST_RETRY_S)
            else:
                pause = FIRST_RETRY_S

    def _has_work(self) -> bool:
        return not self.known or self._wanted or bool(self._outbox)

    def _work(self) -> None:
        """One request."""
        if not self.known:
            self._take(self.client.points(ALL))
        elif self._outbox:
            number, loss = self._outbox[0]
            try:
                self.client.tell(number, loss)
            except ServiceError:
                # One that the service chokes on must not hold up the others.
                with self._changed:
                    self._outbox.rotate(-1)
                raise
            with self._changed:
                self._outbox.popleft()
                self.records[number] = self.records[number]._replace(loss=loss)
                self.trouble = None
                self._changed.notify_all()
        else:
            self._take(self.client.points(NEW))

    def _take(self, records: list[Record]) -> None:
        with self._changed:
            for record in records:
                # What was delivered meanwhile is not taken back by an older answer.
                if record.id not in self.records or record.loss is not None:
                    self.records[record.id] = record
            self.known, self._wanted, self.trouble = True, False, None
            self._next_look = self.clock() + self.poll_s
            self.version += 1
            self._changed.notify_all()

    def all_records(self) -> list[Record]:
        """The points seen so far, in the order in which they were."""
        with self._changed:
            return list(self.records.values())


_services: dict[tuple[int, Address], Service] = {}


def service_of(address: Address, poll_s: float) -> Service:
    """The one service of this process for a workload, which all segments share."""
    key = (os.getpid(), address)
    if key not in _services:
        _services[key] = Service(Client(address), poll_s)
    return _services[key]


def check_files(address: Address) -> None:
    """Look at the files of an address.

    Raises:
        InputError: one cannot be read.
    """
    for name in ("token_file", "proxy", "ca"):
        path = getattr(address, name)
        try:
            if path is not None:
                open(path, "rb").close()
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}", key=name, found=path, valid="a file"
            ) from None
