"""From a study with its segments to a portfolio of searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import StudyState
from hpc_hpo.model import Point, SegmentInfo
from hpc_hpo.optimizers.base import Optimizer
from hpc_hpo.optimizers.ready import with_queue
from hpc_hpo.optimizers.registry import create
from hpc_hpo.prestage.manifest import Manifest
from hpc_hpo.prestage.node_copies import node_copies
from hpc_hpo.space.domains import canonical
from hpc_hpo.steering.gate import ManifestGate
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.reporting import with_model
from hpc_hpo.steering.requests import FolderRequests, pending
from hpc_hpo.steering.search import Search
from hpc_hpo.study import Study
from hpc_hpo.study.segment_set import Segment

#: Between the seeds of a segment's search and those of the same search begun again.
ROUND_SEED = 104_729


def make_optimizer(
    study: Study, segment: Segment, begun_again: int = 0, *, ready: bool = False
) -> Optimizer:
    """The optimiser of one segment, new.

    Args:
        begun_again: how often its search has begun before.
        ready: with a queue of points before it; see optimizers.ready.

    Raises:
        InputErrors: its name or an option is wrong.
    """
    spec = with_model(study, segment)
    made = create(
        spec, segment.space, (segment.seed + ROUND_SEED * begun_again) & 0x7FFFFFFF,
        budget=segment.trials, file=str(study.path), line_of=study.document.line_of,
        signs=study.signs,
    )  # fmt: skip
    return with_queue(made, spec) if ready else made


def search_of(study: Study, segment: Segment, make: Callable[[int], Optimizer]) -> Search:
    """What the portfolio is told of one segment.

    Args:
        make: see Search.
    """
    target = segment.target_loss
    return Search(
        name=segment.name,
        trials=segment.trials,
        make=make,
        target=None if target is None else study.direction_sign * target,
        values=segment.values,
        fit=partial(_fit, segment),
        population=None if study.fidelity is None else study.fidelity.population,
        space=segment.space,
    )


def check_optimizers(study: Study) -> Iterable[InputError]:
    """What is wrong with the optimisers that the segments ask for; each kind is made once."""
    seen: set[tuple[str, int]] = set()
    for segment in study.segments.values():
        kind = (canonical(segment.optimizer), id(segment.space))
        if kind in seen:
            continue
        seen.add(kind)
        try:
            make_optimizer(study, segment)
        except InputError as error:
            yield error


def with_added(study: Study, specs: Iterable[Mapping[str, Any]]) -> Study:
    """The study with segments that stand in no file."""
    listed = list(specs)
    return study.with_segments(listed) if listed else study


def added_specs(state: StudyState) -> list[dict[str, Any]]:
    """The segments that the journal has added."""
    return [record.spec for record in state.segments.values() if record.spec is not None]


def pending_specs(folder: StudyFolder) -> list[dict[str, Any]]:
    """The segments that somebody has asked for and no steering process has added yet."""
    asked = (content for _, content in pending(folder))
    return [content["spec"] for content in asked if isinstance(content.get("spec"), dict)]


def _fit(segment: Segment, point: Point) -> Point | None:
    """A point of another segment in this one's space; None where it is outside."""
    try:
        return segment.space.validate(point)
    except InputError:
        return None


class Opening:
    """Keeps a study, its manifest and its searches in step while segments are added.

    Args:
        study: as of its file.
        manifest, broken, came: see ManifestGate.
    """

    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        state: StudyState,
        manifest: Manifest,
        broken: Mapping[str | None, str],
        came: Callable[[Manifest], None],
    ) -> None:
        self._folder, self._state = folder, state
        self.study = with_added(study, added_specs(state))
        self.gate = ManifestGate(self.study, folder, manifest, broken=broken, came=came)
        self._requests = FolderRequests(folder, self._extend)

    def portfolio(self) -> Portfolio:
        """All searches, at the journal's state."""
        segments, sign = self.study.segments, self.study.direction_sign
        return Portfolio(
            (self._search(segments[name]) for name in segments), self._state, sign=sign,
            policy=segments.policy, floor=segments.floor, gate=self.gate, requests=self._requests,
            points=segments.transfer.points, neighbours=segments.transfer.neighbours,
        )  # fmt: skip

    def total_trials(self) -> int | None:
        """The budgets of all segments, as they are now; None: one of them has none."""
        segments, known = self.study.segments, self._state.segments
        own = {name: known[name].trials for name in segments if name in known}
        each = [own.get(name) or segments.trials(name) for name in segments]
        return None if None in each else sum(filter(None, each))

    def _search(self, segment: Segment) -> Search:
        make = partial(make_optimizer, self.study, segment, ready=True)
        return search_of(self.study, segment, make)

    def _extend(self, spec: dict[str, Any]) -> Search:
        self.study = self.gate.study = self.study.with_segments([spec])
        return self._search(self.study.segments[spec["name"]])

    def info(self, name: str) -> SegmentInfo:
        """What slices of a segment are told."""
        paths = self.gate.manifest.paths_of(name)
        return SegmentInfo(
            name=name,
            values=dict(self.study.segments[name].values),
            inputs={input_: str(self._folder.path / path) for input_, path in paths.items()},
            number=self.study.segments.number(name),
            local=node_copies(self.study, self.gate.manifest, self._folder, name),
        )
