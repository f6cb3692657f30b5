"""The key ``objectives`` of study.yaml: several numbers for each trial in place of one loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hpc_hpo.errors import InputError
from hpc_hpo.schema import Model, refuse
from hpc_hpo.study.sections import Loss
from hpc_hpo.yamlio import Document

FORM = "as in [{name: error}, {name: accuracy, direction: maximize}]"


class Objective(Model):
    """One of several objectives."""

    name: str = Field(min_length=1, max_length=100, description="its name in what trials return")
    direction: Literal["minimize", "maximize"] = Field("minimize", description="what is good")
    reference: float | None = Field(None, description="the worst value that counts")
    key: str | None = Field(None, min_length=1, description="its key in a command's file")
    stdout: str | None = Field(None, description="regular expression with one (group)")

    @model_validator(mode="after")
    def _one_place(self) -> Objective:
        if self.stdout is not None:
            Loss(stdout=self.stdout)  # compiles
            if self.key is not None:
                raise refuse("give key or stdout, not both", "one of them")
        return self

    @property
    def sign(self) -> int:
        """+1 when it is minimised, -1 when it is maximised."""
        return 1 if self.direction == "minimize" else -1

    def rule(self) -> dict[str, str]:
        """Where a command's value is, as workers get it."""
        return {"key": self.key or self.name} if self.stdout is None else {"stdout": self.stdout}


def _as_tuple(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        raise refuse("no list of two objectives or more", f"{FORM}; one alone is `direction`")
    return tuple(value)


def _different(value: tuple[Objective, ...]) -> tuple[Objective, ...]:
    names = [one.name for one in value]
    for name in names:
        if names.count(name) > 1:
            raise refuse(f"two objectives are called {name}", "a name for each")
    if "loss" in names[1:]:
        raise refuse("only the first can be called loss: it is the trial's loss", "another name")
    return value


Objectives = Annotated[
    tuple[Objective, ...], BeforeValidator(_as_tuple), AfterValidator(_different)
]


def with_direction(data: dict[str, Any]) -> dict[str, Any]:
    """A study's keys with the direction of its first objective as `direction`."""
    given = data.get("objectives")
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, Mapping) and "direction" not in data:
        return {**data, "direction": first.get("direction", "minimize")}
    return data


def check_objectives(study: Any, doc: Document) -> Iterator[InputError]:
    """What does not go with several objectives.

    Args:
        study: a load.Study, which this module cannot name.
    """
    if not study.objectives:
        return
    names = ", ".join(one.name for one in study.objectives)
    first = study.objectives[0]
    if study.direction != first.direction:
        yield doc.problem(
            "direction", f"the first objective says {first.direction}", found=study.direction,
            valid="a direction for each objective, and none beside them",
        )  # fmt: skip
    if study.contract is not None:
        yield doc.problem(
            "contract", "an evaluation has one loss", found=f"objectives {names}",
            valid="command without contract, or objective",
        )  # fmt: skip
    for name in ("key", "stdout"):
        if getattr(study.loss, name) is not None:
            yield doc.problem(
                f"loss.{name}", "there are several objectives",
                valid=f"{name} of each entry of objectives",
            )  # fmt: skip
    for i, one in enumerate(study.objectives):
        for name in ("key", "stdout"):
            if study.command is None and getattr(one, name) is not None:
                yield doc.problem(
                    f"objectives[{i}].{name}", "this goes with command, not with objective",
                    valid=f"an objective that returns a dict with the keys {names}",
                )  # fmt: skip
    if study.budget.target_loss is not None:
        yield doc.problem(
            "budget.target_loss", "several objectives have no one target", valid="no such key"
        )
    if study.fidelity is not None:
        yield doc.problem(
            "fidelity", "trials are stopped early by one loss, and there are several objectives",
            found=study.fidelity.policy, valid="no such key",
        )  # fmt: skip
    section = study.segments_spec
    if isinstance(section, Mapping):
        for name, value in (("policy", "best-gain"), ("transfer", None)):
            found = section.get(name)
            if found and (value is None or found == value):
                yield doc.problem(
                    f"segments.{name}", "it compares one loss, and there are several objectives",
                    found=found, valid="policy: fair, without transfer",
                )  # fmt: skip
        listed = section.get("list")
        for i, entry in enumerate(listed if isinstance(listed, list) else ()):
            budget = entry.get("budget") if isinstance(entry, Mapping) else None
            if isinstance(budget, Mapping) and "target_loss" in budget:
                yield doc.problem(
                    f"segments.list[{i}].budget.target_loss",
                    "several objectives have no one target", valid="no such key",
                )  # fmt: skip
