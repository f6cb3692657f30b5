"""The `inputs` section of study.yaml: files that are staged before jobs need them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from hpc_hpo.schema import Model, refuse
from hpc_hpo.study.sections import Identifier

_DIGEST = re.compile(r"[0-9a-fA-F]{64}\Z")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
#: Kinds of which the source is one file that is never opened.
_CLOSED = ("container", "requirements")


def _digest(value: str) -> str:
    if not _DIGEST.match(value):
        raise refuse("not a sha256", "64 hexadecimal digits, as sha256sum prints them")
    return value.lower()


def is_remote(source: str) -> bool:
    """Whether a source has to be fetched: a URL of any protocol but file."""
    return bool(_URL.match(source)) and not source.startswith("file://")


class Input(Model):
    """Files that are staged before jobs need them, and given to trials by name."""

    name: Identifier = Field(description="the name by which trials ask for it")
    source: str = Field(
        min_length=1, description="a path or glob, relative to the study file; or a URL"
    )
    mode: Literal["link", "copy"] = Field("link", description="how it comes into the study")
    kind: Literal["data", "environment", "container", "requirements"] = Field(
        "data", description="what it is"
    )
    segment: str | None = Field(
        None, min_length=1, max_length=100, description="the segment that alone needs it"
    )
    sha256: Annotated[str, AfterValidator(_digest)] | None = Field(
        None, description="what the source's content must have"
    )
    unpack: bool = Field(False, description="whether trials get the content of an archive")
    node_local: bool = Field(False, description="whether each node gets a copy on its own disk")
    options: dict[str, Any] = Field({}, description="of the protocol, as fsspec takes them")

    @model_validator(mode="after")
    def _together(self) -> Input:
        if self.sha256 is not None and self.glob:
            raise refuse("a sha256 is of one file, but the source is a glob", "the path of a file")
        if self.unpack and self.glob:
            raise refuse("one archive is unpacked, but the source is a glob", "the path of a file")
        if self.unpack and self.kind in _CLOSED:
            raise refuse(f"a source of kind {self.kind} is not unpacked", "unpack: false")
        if self.options and not self.remote:
            raise refuse("options go with a URL", "a source such as s3://bucket/file")
        return self

    @property
    def remote(self) -> bool:
        """Whether it has to be fetched over a network."""
        return is_remote(self.source)

    @property
    def glob(self) -> bool:
        """Whether the source is a pattern. In a URL, ``?`` begins the query."""
        return any(c in self.source for c in ("*[" if self.remote else "*?["))

    @property
    def archive(self) -> bool:
        """Whether trials get what is inside the source's file; an environment may also be a
        folder."""
        return self.unpack or self.kind == "environment"

    def label(self) -> str:
        """The input in a message."""
        where = f" of segment {self.segment}" if self.segment is not None else ""
        return f"input {self.name}{where}"
