"""What an outside service is told of trials that have ended.

It follows the journal's state, not the optimiser's calls: after a restart, what the service has
is held against what the journal has, and only what is missing is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpc_hpo.errors import HpoError
from hpc_hpo.journal import StudyState
from hpc_hpo.optimizers.idds import FAILED_LOSS, POLL_S, address_of, key_of, same_model
from hpc_hpo.optimizers.idds_service import Record, Service, service_of
from hpc_hpo.study import Study
from hpc_hpo.study.segment_set import Segment

#: How long the end of a study waits for a service that does not answer, and the end of a run
#: that will go on later, in seconds.
LAST_WAIT_S, SHORT_WAIT_S = 60.0, 5.0


class Undelivered(HpoError):
    """Losses are in the journal that the service could not be told."""

    transient = True


@dataclass
class IddsReport:
    """Tells one workload the losses of one segment's trials.

    Attributes:
        segment: whose search takes its points from the workload.
        model: the model's id of the segment there.
        sign: +1 when losses are minimised, -1 when they are maximised; the service minimises.
        failed_loss: told for a trial that has failed.
    """

    segment: Segment
    service: Service
    model: int | str | None
    sign: int
    failed_loss: float
    _told: dict[str, float] = field(default_factory=dict)
    _ids: dict[str, list[str]] = field(default_factory=dict)
    _log_at: int = 0
    _records_at: int = 0
    _version: int = -1

    def observe(self, state: StudyState) -> None:
        """Hand over what is new in the state, or what the service has only now given an id."""
        fresh = set(self._learn(state))
        if not self.service.known:
            self.service.want()
            return
        if self._version != self.service.version:
            self._version = self.service.version
            fresh |= self._look(self.service.all_records())
        for key in fresh & self._told.keys():
            for number in self._ids.get(key, []):
                if self.service.records[number].loss is None:
                    self.service.tell(number, self._told[key])

    def _learn(self, state: StudyState) -> list[str]:
        """Keys of the points whose trials have ended since the last look."""
        keys = []
        for kind, number in state.search_log.since(self._log_at):
            trial = state.trials[number]
            if kind != "told" or trial.segment != self.segment.name or trial.superseded:
                continue
            key = self.segment.space.key(trial.point)
            loss = self.failed_loss if trial.loss is None else self.sign * trial.loss
            self._told[key] = loss
            keys.append(key)
        self._log_at = len(state.search_log)
        return keys

    def _look(self, records: list[Record]) -> set[str]:
        """Keys of the points that the service has given an id since the last look."""
        keys = set()
        for record in records[self._records_at :]:
            if same_model(record, self.model):
                key = key_of(self.segment.space, record)
                # A point may be handed out twice, under two ids: it is evaluated once.
                self._ids.setdefault(key, []).append(record.id)
                keys.add(key)
        self._records_at = len(records)
        return keys

    def finish(self, state: StudyState, done: bool) -> None:
        """Wait until the service has everything.

        Args:
            done: nothing is left to do in the study, so no later run would send the rest.

        Raises:
            Undelivered: it does not answer; the journal has what it lacks.
        """
        seconds = LAST_WAIT_S if done else SHORT_WAIT_S
        if not any(kind == "told" for kind, _ in state.search_log):
            return
        if self.service.wait_known(seconds):
            self.observe(state)
        if not (self.service.known and self.service.wait_delivered(seconds)) and done:
            error = self.service.problem or self.service.trouble
            raise Undelivered(
                f"losses could not be told to {self.service.client.address.host}: {error}. They "
                "are in the journal: run the study again to send them."
            )


@dataclass
class Reports:
    """All services that a study tells of its trials; most studies have none."""

    reports: list[IddsReport]

    def observe(self, state: StudyState) -> None:
        """See IddsReport.observe."""
        for report in self.reports:
            report.observe(state)

    def finish(self, state: StudyState, *, done: bool) -> None:
        """See IddsReport.finish."""
        for report in self.reports:
            report.finish(state, done)


def reports_of(study: Study) -> Reports:
    """Who is to be told of the study's trials.

    Raises:
        InputError: an option of the service is wrong.
    """
    found = []
    for segment in study.segments.values():
        spec = segment.optimizer
        if spec["name"] != "idds":
            continue
        options: dict[str, Any] = with_model(study, segment)
        service = service_of(address_of(options), options.get("poll", POLL_S))
        failed = options.get("failed_loss", FAILED_LOSS)
        model, sign = options.get("model_id"), study.direction_sign
        found.append(IddsReport(segment, service, model, sign, float(failed)))
    return Reports(found)


def with_model(study: Study, segment: Segment) -> dict[str, Any]:
    """The optimiser's name and options, for idds with the model's id of a named segment."""
    spec = dict(segment.optimizer)
    if spec["name"] == "idds" and segment.name is not None:
        spec.setdefault("model_id", study.segments.number(segment.name))
    return spec
