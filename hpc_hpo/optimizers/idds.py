"""Points from ATLAS's central service: iDDS does the steering, this machine the trainings.

What the service is told is the business of steering.reporting, which follows the journal: the
service minimises, as the optimisers here do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.optimizers.idds_service import Address, Record, Service, check_files, service_of
from hpc_hpo.space import Space

#: What a failed trial's loss is given as: the service knows no failures.
FAILED_LOSS = 1e5
POLL_S, PATIENCE_S = 10.0, 3600.0

OPTIONS: Mapping[str, Option] = {
    "host": Option(kind="text"),
    "workload": Option(kind="any"),
    "token_file": Option(kind="text"),
    "vo": Option(kind="text"),
    "proxy": Option(kind="text"),
    "ca": Option(kind="text"),
    "failed_loss": Option(kind="number"),
    "poll": Option(kind="number"),
    "patience": Option(kind="number"),
    "model_id": Option(kind="any"),
}


def address_of(options: Mapping[str, Any]) -> Address:
    """Where the workload of an optimiser's options is.

    Raises:
        InputError: host or workload is missing or wrong, or a file cannot be read.
    """
    host, workload = options.get("host"), options.get("workload")
    if not isinstance(host, str) or not host.startswith(("http://", "https://")):
        raise InputError(
            "no service", key="host", found=host, valid="as in https://iddsserver.cern.ch:443/idds"
        )
    if isinstance(workload, bool) or not isinstance(workload, (int, str)) or workload == "":
        raise InputError("no workload", key="workload", found=workload, valid="the task's id")
    files = ("token_file", "proxy", "ca")
    named = {name: os.path.expanduser(options[name]) for name in files if options.get(name)}
    named |= {"vo": options["vo"]} if options.get("vo") else {}
    address = Address(host, str(workload), **named)
    check_files(address)
    return address


def key_of(space: Space, record: Record) -> str:
    """The key of a record's point in the space.

    Raises:
        InputError: it is not valid there; the text has its id.
    """
    try:
        return space.key(space.validate(record.parameters))
    except InputErrors as error:
        raise InputError(
            f"the service's point {record.id} does not belong to the study's space: {error}",
            valid="the same search space in the study and in the task",
        ) from None


class IddsSearch(BaseOptimizer):
    """Asks an iDDS service for points. Used from the login node alone.

    An ask returns at once with what the courier has brought so far, and may return fewer points
    than were asked for although more are to come.

    Args:
        host: of the service, with its path.
        workload: the task's id.
        token_file, vo: an OIDC token, and the organisation that goes with it.
        proxy: an X.509 proxy in place of it.
        ca: certificates for the server's own.
        failed_loss: what failed trials are told as.
        poll: seconds between two looks for new points, at least.
        patience: seconds without a new point, and without an open trial, after which the
            search is over.
        model_id: of a segment's search, the model that its points are of.

    Raises:
        InputError: host or workload is missing, or a file cannot be read.
    """

    RETELLS: ClassVar[bool] = False
    OPTIONS: ClassVar[Mapping[str, Option]] = OPTIONS
    LEARNS: ClassVar[bool] = False

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        model_id: int | str | None = None,
        poll: float = POLL_S,
        patience: float = PATIENCE_S,
        failed_loss: float = FAILED_LOSS,
        **address: Any,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self._model, self._patience = model_id, patience
        self._service: Service = service_of(address_of(address), poll)
        self._seen = 0  #: records looked at
        self._new: dict[str, Point] = {}  #: by key, those that were not asked yet
        self._news_at = time.monotonic()

    @property
    def exhausted(self) -> bool:
        if self._new or len(self.points) > len(self.losses):
            return False
        return time.monotonic() - self._news_at > self._patience

    def tell(self, id: int, loss: float | None) -> None:
        super().tell(id, loss)
        self._news_at = time.monotonic()

    def ask(self, ids: Sequence[int]) -> list[Point]:
        if not ids:
            return []
        if self._service.problem is not None:
            raise self._service.problem
        points = self._propose(len(ids))
        for trial, point in zip(ids, points, strict=False):
            self.adopt(trial, point)
        return points

    def _propose(self, count: int) -> list[Point]:
        self._look()
        if len(self._new) < count:
            self._service.want()
        keys = list(self._new)[:count]
        return [self._new.pop(key) for key in keys]

    def _look(self) -> None:
        """Take in what the courier has brought."""
        records = self._service.all_records()
        for record in records[self._seen :]:
            if not same_model(record, self._model) or record.loss is not None:
                continue
            key = key_of(self.space, record)
            if key not in self._keys:
                self._new.setdefault(key, self.space.validate(record.parameters))
                self._news_at = time.monotonic()
        self._seen = len(records)


def same_model(record: Record, model: int | str | None) -> bool:
    """Whether a record is of this model; ids of models may be numbers or texts."""
    if record.model is None or model is None:
        return record.model is None and model is None
    return str(record.model) == str(model)
