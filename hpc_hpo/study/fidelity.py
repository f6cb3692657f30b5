"""The section `fidelity`: which trials are stopped early, or go on as copies of better ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hpc_hpo.errors import InputError
from hpc_hpo.schema import Count, Model, one_of, refuse
from hpc_hpo.study.sections import Checkpointing, Loss
from hpc_hpo.yamlio import Document

#: Keys that go with policy pbt alone, and their values where they are not given. The section keeps
#: None for those, or a frozen study of another policy would hold them.
QUANTILE, PERTURB, RESAMPLE = 0.25, (0.8, 1.2), 0.25
OF_PBT = ("population", "every", "quantile", "perturb", "resample", "vary")


def _factors(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value or any(factor <= 0 for factor in value):
        raise refuse("no factors", "numbers above 0, as in [0.8, 1.2]")
    return value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Fidelity(Model):
    """Which trials are stopped early, by what they report at steps on their way."""

    policy: Literal["asha", "hyperband", "median", "pbt"] = Field(
        description="who goes on from a rung"
    )
    min: Count = Field(1, description="the first step at which a trial may be stopped")
    max: Count = Field(description="the step at which a trial is at its end")
    eta: int = Field(3, ge=2, description="asha, hyperband: one of so many goes on")
    metric: str = Field(
        "loss", min_length=1, description="the name under which the loss is reported"
    )
    population: int | None = Field(None, ge=2, description="pbt: trials that are trained together")
    every: Count | None = Field(None, description="pbt: steps between two comparisons")
    quantile: float | None = Field(
        None, gt=0, le=0.5, description="pbt: the share that is replaced, and that is copied"
    )
    perturb: Annotated[
        tuple[float, ...] | None, BeforeValidator(_tuple), AfterValidator(_factors)
    ] = Field(None, description="pbt: a copied value is multiplied by one of these")
    resample: float | None = Field(
        None, ge=0, le=1, description="pbt: how likely a value is drawn anew instead"
    )
    vary: Annotated[tuple[str, ...] | None, BeforeValidator(_tuple)] = Field(
        None, min_length=1, description="pbt: parameters that copies change; all by default"
    )

    @property
    def first(self) -> int:
        """The first rung's step, or the least of them."""
        return self.every or self.min

    def problems(
        self, kind: str, checkpoint: Checkpointing, loss: Loss, doc: Document,
        names: list[str], trials: int | None,
    ) -> Iterator[InputError]:  # fmt: skip
        """What the model cannot see of one key alone.

        Args:
            kind: of the study's payload.
            checkpoint, loss: the study's sections.
            names: of its parameters.
            trials: its budget of them.
        """
        if kind == "evaluation":
            yield doc.problem(
                "fidelity", "an evaluation has no checkpoints: it cannot go on from a rung",
                found=self.policy, valid="with an objective, or a command without this contract",
            )  # fmt: skip
        if kind == "command" and not checkpoint.files:
            yield doc.problem(
                "fidelity", "a command goes on from a rung by its checkpoint files, and none are "
                "named", found=self.policy, valid="with checkpoint.files",
            )  # fmt: skip
        if kind == "command" and loss.stdout is not None:
            yield doc.problem(
                "fidelity", "what a command prints before a rung would count as its whole loss",
                found=self.policy, valid="with loss.file, written at its end",
            )  # fmt: skip
        if self.policy == "pbt":
            yield from self._problems_of_pbt(doc, names)
            if trials is not None and self.population is not None and trials <= self.population:
                yield doc.problem(
                    "budget.trials", "no trial would be replaced: copies count as trials, too",
                    found=trials, valid=f"more than fidelity.population ({self.population}), or "
                    "budget.epochs",
                )  # fmt: skip
            return
        for key in OF_PBT:
            if (found := getattr(self, key)) is not None:
                yield doc.problem(f"fidelity.{key}", "goes with policy: pbt", found=found)
        if self.min >= self.max:
            yield doc.problem(
                "fidelity.min", "no rung is below fidelity.max", found=self.min,
                valid=f"less than {self.max}",
            )  # fmt: skip

    def _problems_of_pbt(self, doc: Document, names: list[str]) -> Iterator[InputError]:
        for key in ("population", "every"):
            if getattr(self, key) is None:
                yield doc.problem(f"fidelity.{key}", "required with policy: pbt")
        for key, default in (("min", 1), ("eta", 3)):
            if (found := getattr(self, key)) != default:
                yield doc.problem(
                    f"fidelity.{key}", "does not go with policy: pbt", found=found,
                    valid="every, population, quantile",
                )  # fmt: skip
        if self.every is not None and self.every >= self.max:
            yield doc.problem(
                "fidelity.every", "no comparison is before fidelity.max", found=self.every,
                valid=f"less than {self.max}",
            )  # fmt: skip
        for i, name in enumerate(self.vary or ()):
            if name not in names:
                yield doc.problem(
                    f"fidelity.vary[{i}]", "no such parameter", found=name,
                    valid=one_of(name, names),
                )  # fmt: skip
