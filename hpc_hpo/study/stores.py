"""Where MLflow's runs are kept: a SQLite database, or a folder of files, on this machine.

Nothing else is taken: what is written goes to the disk and never over a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, field_validator

from hpc_hpo.errors import InputError
from hpc_hpo.schema import Model, refuse

#: Names that a database's file has; other paths are folders.
DATABASES = (".db", ".sqlite", ".sqlite3")
#: Of the database in a folder.
DATABASE = "mlflow.db"
#: The folder for it within a study's, unless another is named.
STORE = "mlflow"
VALID = "a folder, sqlite:///FILE, or file:FOLDER for MLflow's older store of plain files"


@dataclass(frozen=True)
class Store:
    """A store of MLflow.

    Attributes:
        place: the database's file, or the folder of the file store; absolute.
        files: True for the file store.
    """

    place: Path
    files: bool

    @property
    def uri(self) -> str:
        """As `mlflow ui --backend-store-uri` takes it."""
        return self.place.as_uri() if self.files else f"sqlite:///{self.place}"

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.place if self.files else self.place.parent

    @property
    def artifacts(self) -> Path | None:
        """The folder of all artifacts; None where the store has places of its own."""
        return None if self.files else self.folder / "mlartifacts"

    @property
    def lock(self) -> Path:
        """Held by whoever writes."""
        return self.folder / (f".{self.place.name}.hpc-hpo.lock")


def read_store(text: str, base: Path, key: str) -> Store:
    """The store that a user means.

    A plain path is a folder with a database in it (`mlflow.db`), or the database itself where its
    name ends so; a folder that holds a file store already is one.

    Args:
        base: where relative paths begin.
        key: where it was given, for the error.

    Raises:
        InputError: it is neither.
    """
    scheme, colon, rest = text.partition(":")
    if scheme == "sqlite":
        path = rest.removeprefix("///")
        if path == rest or path in ("", ":memory:") or "?" in path:
            raise InputError("this is no SQLite file", found=text, valid=VALID, key=key)
        return Store((base / path).absolute(), files=False)
    if scheme == "file":
        path = unquote(rest.removeprefix("//"))
        if not path:
            raise InputError("this names no folder", found=text, valid=VALID, key=key)
        return Store((base / path).absolute(), files=True)
    if not text or (colon and rest.startswith("//")):
        raise InputError(
            "results are not written to such a store", found=text, valid=VALID, key=key
        )
    place = (base / text).absolute()
    if place.suffix in DATABASES and not place.is_dir():
        return Store(place, files=False)
    if is_file_store(place):
        return Store(place, files=True)
    return Store(place / DATABASE, files=False)


def is_file_store(folder: Path) -> bool:
    """Whether the folder holds MLflow's store of files: experiments, each with its meta.yaml."""
    return not (folder / DATABASE).exists() and any(folder.glob("*/meta.yaml"))


class Tracking(Model):
    """Who is shown a study's runs while it goes on."""

    mlflow: str | None = Field(None, description=f"MLflow's store: {VALID}")

    @field_validator("mlflow")
    @classmethod
    def _is_a_store(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                read_store(value, Path.cwd(), "")
            except InputError as error:
                raise refuse(error.problem, VALID) from None
        return value

    def store(self, base: Path, folder: Path) -> Store:
        """The store that is meant.

        Args:
            base: where relative paths begin: the folder of the study's file.
            folder: of the study, in which it is unless another is named.
        """
        return read_store(self.mlflow or str(folder / STORE), base, "tracking.mlflow")


def _as_mapping(value: Any) -> Any:
    """Both forms of the key as one: the word, or a mapping with the store in it."""
    if isinstance(value, str):
        if value != "mlflow":
            raise refuse(
                "nothing of that name", "mlflow, or as in {mlflow: sqlite:////data/runs.db}"
            )
        return {"mlflow": None}
    return value


#: The key `tracking` of a study.
TrackingKey = Annotated[Tracking | None, BeforeValidator(_as_mapping)]
