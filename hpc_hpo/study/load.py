"""From study.yaml to a Study, or to everything that is wrong with it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, field_validator

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.schema import Model, one_of, require_mapping, validate
from hpc_hpo.space import Space
from hpc_hpo.study.evaluation import Container, Evaluation
from hpc_hpo.study.fidelity import Fidelity
from hpc_hpo.study.inputs import Input
from hpc_hpo.study.objectives import Objectives, check_objectives, with_direction
from hpc_hpo.study.sections import (
    Blocks,
    Budget,
    Checkpointing,
    Loss,
    OptimizerChoice,
    TrialNeeds,
    check_env,
    check_network,
    normal_optimizer,
    placeholders,
)
from hpc_hpo.study.segment_reading import read_segments
from hpc_hpo.study.segment_set import Segments, Shared
from hpc_hpo.study.start import StartSource, read_start
from hpc_hpo.study.stores import TrackingKey
from hpc_hpo.study.submission import is_submission, load_submission
from hpc_hpo.study.written import (
    OBJECTIVE_FORMS,
    as_written,
    check_payload_keys,
    objective_form,
    safe_name,
    unnest_objective,
)
from hpc_hpo.yamlio import Document, load_yaml

#: Placeholders of a command that are no parameters.
BUILT_IN = ("trial", "seed")


class Study(Model):
    """A validated study. Built by load_study; keys as in docs/study.md."""

    name: Annotated[str, AfterValidator(safe_name)] = Field(
        description="a name for the study, as in name: digits"
    )
    objective: Annotated[str, AfterValidator(objective_form)] | None = Field(
        None, description=OBJECTIVE_FORMS
    )
    command: tuple[str, ...] | None = Field(
        None, min_length=1, description='a list of arguments, as in [python, train.py, "{lr}"]'
    )
    contract: Literal["evaluation"] | None = Field(None, description="evaluation, with command")
    evaluation: Evaluation = Field(Evaluation(), description="an evaluation's file names")
    container: Container | None = Field(None, description="the image that a command runs in")
    loss: Loss = Field(Loss(), description="where a command's loss is found")
    direction: Literal["minimize", "maximize"] = Field("minimize", description="of the loss")
    objectives: Objectives = Field((), description="several objectives in place of one loss")
    space_spec: dict[str, Any] = Field(alias="space", description="the parameters and their ranges")
    constraint: tuple[str, ...] = Field((), description="expressions every point satisfies")
    optimizer: Annotated[OptimizerChoice, BeforeValidator(normal_optimizer)] = Field(
        OptimizerChoice(), description="how points are chosen"
    )
    seed: int = Field(0, ge=0, description="the study's seed")
    budget: Budget = Field(description="when the study is done, as in {trials: 40}")
    fidelity: Fidelity | None = Field(None, description="which trials are stopped early")
    trial: TrialNeeds = Field(TrialNeeds(), description="what one trial needs")
    checkpoint: Checkpointing = Field(Checkpointing(), description="how trials are saved")
    inputs: tuple[Input, ...] = Field((), description="files that trials read")
    env: Annotated[dict[str, str], AfterValidator(check_env)] = Field(
        {}, description="environment variables of trials"
    )
    network: Annotated[
        Literal["deny", "allow"] | tuple[str, ...] | None, BeforeValidator(check_network)
    ] = Field(None, description="deny, allow, or a list of hosts that stay open")
    site: str = Field("local", min_length=1, description="a site's name, or a path of its file")
    account: str | None = Field(
        None, min_length=1, description="the project or account that pays, as in account: ABC123"
    )
    queue: str | None = Field(None, min_length=1, description="one of the site's queues")
    blocks: Blocks = Field(Blocks(), description="the batch jobs that hold the workers, or auto")
    tracking: TrackingKey = Field(None, description="who is shown the runs: mlflow")
    segments_spec: Any = Field(
        None, alias="segments", description="models with data and a search of their own"
    )
    start_spec: Any = Field(
        None, alias="start_from", description="what the study begins with, as in [{study: ../old}]"
    )

    _space: Space = PrivateAttr()
    _start_from: tuple[StartSource, ...] = PrivateAttr(())
    _segments: Segments = PrivateAttr()
    _frozen_segments: dict[str, Any] | None = PrivateAttr()
    _document: Document = PrivateAttr()
    _path: Path = PrivateAttr()
    _folder: Path = PrivateAttr()

    @field_validator("command", "inputs", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("constraint", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else cls._lists(value)

    @property
    def space(self) -> Space:
        """The parsed search space."""
        return self._space

    @property
    def segments(self) -> Segments:
        """Its segments; one without a name where the study has no such key."""
        return self._segments

    @property
    def start_from(self) -> tuple[StartSource, ...]:
        """What it begins with."""
        return self._start_from

    def with_segments(self, specs: Iterable[Mapping[str, Any]]) -> Study:
        """The study with further segments, each as an entry of ``segments.list``.

        Raises:
            InputError: one of them is not valid.
        """
        study = self.model_copy()
        study._segments = self._segments.added(specs)
        for name in study._segments:
            for argument in self.command or () if name not in self._segments else ():
                for error in study._segments.check_text(argument, "command", name):
                    raise error
        return study

    def all_inputs(self) -> list[Input]:
        """Every input: those that all trials share, and those of one segment.

        What stages, checks or hands out inputs reads this, not the key `inputs`.
        """
        return list(self._segments.all_inputs())

    @property
    def path(self) -> Path:
        """The study file, absolute."""
        return self._path

    @property
    def folder(self) -> Path:
        """The absolute folder to which the study's paths are relative."""
        return self._folder

    @property
    def document(self) -> Document:
        """The parsed file, which knows the lines."""
        return self._document

    @property
    def text(self) -> str:
        """The study file as it was read."""
        return self._document.text

    @property
    def direction_sign(self) -> int:
        """+1 when the loss is minimised, -1 when it is maximised."""
        return 1 if self.direction == "minimize" else -1

    @property
    def signs(self) -> tuple[int, ...]:
        """The same of each of several objectives; empty where there is one loss."""
        return tuple(one.sign for one in self.objectives)

    @property
    def optimizer_seed(self) -> int:
        """The optimiser's own seed, or the study's."""
        return self.seed if self.optimizer.seed is None else self.optimizer.seed

    @property
    def kind(self) -> str:
        """The payload's kind as workers know it: python, command or evaluation."""
        return "python" if self.objective is not None else (self.contract or "command")

    def python_target(self) -> tuple[str, list[str]]:
        """("module:function", folders for sys.path) of a Python objective.

        Raises:
            ValueError: the study runs a command.
        """
        if self.objective is None:
            raise ValueError("the study runs a command")
        module, _, function = self.objective.partition(":")
        if not module.endswith(".py"):
            return f"{module}:{function}", [str(self.folder)]
        file = self.folder / module
        return f"{file.stem}:{function}", [str(file.parent)]

    def problem(
        self, key: str, problem: str, *, found: Any = None, valid: str | list[str] | None = None
    ) -> InputError:
        """An error about one key of this study, with the file's name and line."""
        return self._document.problem(key, problem, found=found, valid=valid)

    def to_dict(self) -> dict[str, Any]:
        """The study with all defaults written out, as plain JSON values.

        Durations and sizes are texts; as YAML (of which JSON is a part) the result is a study
        file again, and loading it gives the same dict.
        """
        plain = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        # From the parsed file, where None can be a value: a choice or an option may hold it.
        plain["space"] = copy.deepcopy(self.space_spec)
        plain["optimizer"] = {
            **copy.deepcopy(self.optimizer.spec()),
            "seed": self.optimizer_seed,
        }
        if self._frozen_segments is not None:
            # As written: its values may be None, too, and a table stays short.
            plain["segments"] = copy.deepcopy(self._frozen_segments)
        if self.start_spec is not None:
            plain["start_from"] = copy.deepcopy(self.start_spec)
        if self.kind == "command":
            plain["loss"] = self.loss.spec()
            if self.objectives:
                del plain["loss"]["key"]
        else:
            del plain["loss"]
        if self.kind != "evaluation":
            del plain["evaluation"]
        if not self.objectives:
            del plain["objectives"]
        return plain


def _check_names(study: Study, doc: Document) -> Iterator[InputError]:
    """Every placeholder of the command has a value, and every parameter named is one."""
    inputs = {f"inputs.{name}": lacks for name, lacks in study.segments.input_names().items()}
    parameters = study.segments.parameter_names()
    if study.fidelity is not None:
        yield from study.fidelity.problems(
            study.kind, study.checkpoint, study.loss, doc, parameters, study.budget.trials
        )
    known = [*parameters, *inputs, *BUILT_IN]
    for i, argument in enumerate(study.command or ()):
        try:
            names = placeholders(argument)
        except ValueError as error:
            yield doc.problem(
                f"command[{i}]",
                f"bad placeholder: {error}",
                found=argument,
                valid="{name}, and {{ or }} for a plain brace",
            )
            continue
        yield from study.segments.check_text(argument, f"command[{i}]")
        for name in names:
            if name.startswith("segment."):
                continue
            if name not in known:
                yield doc.problem(
                    f"command[{i}]",
                    "unknown placeholder",
                    found=f"{{{name}}}",
                    valid=one_of(name, known),
                )
            elif inputs.get(name) is not None:
                yield doc.problem(
                    f"command[{i}]",
                    f"segment {inputs[name]} has no such input",
                    found=f"{{{name}}}",
                )
            elif name in BUILT_IN and name in parameters:
                yield doc.problem(
                    f"space.{name}",
                    f"a parameter must not be called {name}: the command's {{{name}}} is the "
                    f"{'number of the trial' if name == 'trial' else 'seed of the trial'}",
                )


def _check_together(study: Study, doc: Document) -> Iterator[InputError]:
    """What one key says about another."""
    expected, limit = study.trial.expected_time, study.trial.max_time
    if expected is not None and limit is not None and expected > limit:
        yield doc.problem(
            "trial.expected_time", "longer than trial.max_time: every trial would be ended",
            found=doc.scalars.get("trial.expected_time"),
            valid=f"at most {doc.scalars.get('trial.max_time')}",
        )  # fmt: skip
    yield from check_objectives(study, doc)
    yield from study.budget.problems(study.kind, doc)
    if study.command and not study.command[0].strip():
        yield doc.problem("command[0]", "the program's name is empty")
    # Upper case, because a command gets each as HPC_HPO_INPUT_<NAME>.
    shared = {item.name.upper() for item in study.inputs if item.segment is None}
    seen: set[tuple[str | None, str]] = set()
    for i, item in enumerate(study.inputs):
        upper = item.name.upper()
        # A segment's trials get its inputs beside the shared ones.
        if (item.segment, upper) in seen or (item.segment is not None and upper in shared):
            yield doc.problem(
                f"inputs[{i}].name", "two inputs have this name", found=item.name,
                valid="names that differ by more than case",
            )  # fmt: skip
        seen.add((item.segment, upper))


def _parse_space(data: Mapping[str, Any], doc: Document) -> tuple[Space | None, list[InputError]]:
    """The search space, or its problems. A missing or mistyped key is the model's to report."""
    spec, constraint = data.get("space"), data.get("constraint", ())
    constraints = [constraint] if isinstance(constraint, str) else constraint
    if not isinstance(spec, dict) or not isinstance(constraints, (list, tuple)):
        return None, []
    if not all(isinstance(c, str) for c in constraints):
        return None, []
    try:
        return Space.parse(
            spec, constraints=list(constraints), file=doc.file, key="space", line_of=doc.line_of
        ), []
    except InputErrors as error:
        return None, error.errors
    except InputError as error:
        return None, [error]


def _take_segments(study: Study, doc: Document, folder: Path) -> list[InputError]:
    """Give the study its segments; what is wrong with them."""
    shared = Shared(
        space=study.space_spec,
        constraint=study.constraint,
        optimizer=study.optimizer,
        seed=study.seed,
        trials=study.budget.trials,
        target_loss=study.budget.target_loss,
        inputs=study.inputs,
    )
    raw = study.segments_spec
    study._segments, errors, study._frozen_segments = read_segments(raw, shared, doc, folder)
    return errors


def parse_study(doc: Document, *, path: Path, folder: Path | None = None) -> Study:
    """Validate a parsed study file; see load_study."""
    doc = unnest_objective(doc)
    data = with_direction(as_written(require_mapping(doc, "study"), doc))
    errors = list(check_payload_keys(data, doc))
    study, found = validate(Study, data, doc)
    space, more = _parse_space(data, doc)
    errors += [*found, *more]
    if study is not None:
        errors += _check_together(study, doc)
        if space is not None:
            errors += _take_segments(study, doc, folder or path.parent)
            errors += _check_names(study, doc)
            named = {str(name): None for name in study.segments} if study.segments.named else None
            study._start_from, found = read_start(study.start_spec, doc, named)
            errors += found
    if errors:
        errors.sort(key=lambda e: e.line or 0)
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
    assert study is not None and space is not None, "each failure has its error"
    study._space, study._document = space, doc
    study._path = path.absolute()
    study._folder = (folder or path.parent).absolute()
    return study


def load_study(path: Path, *, folder: Path | None = None) -> Study:
    """Read and validate a study file, or a submission file of phpo (see submission).

    Nothing outside the file is looked at; check_payload does that.

    Args:
        path: the study file.
        folder: where its relative paths begin, when that is not the file's own folder (a
            frozen study lies elsewhere than the file it was made from).

    Raises:
        InputError: the file cannot be read, or one thing is wrong with it.
        InputErrors: several things are wrong with it.
    """
    doc = load_submission(path)[0] if is_submission(path) else load_yaml(path)
    return parse_study(doc, path=path, folder=folder)
