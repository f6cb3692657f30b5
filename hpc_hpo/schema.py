"""What study and site files share: strict pydantic models, and errors a user can act on."""

from __future__ import annotations

import difflib
import reprlib
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from hpc_hpo.errors import InputError
from hpc_hpo.units import (
    DURATION_FORMS,
    SIZE_FORMS,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from hpc_hpo.yamlio import Document, join_key


class Model(BaseModel):
    """A section of a file: no unknown keys, no conversions between types, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)


class Located(Protocol):
    """What knows where a key is written."""

    def problem(
        self, key: str, problem: str, *, found: Any = None, valid: str | list[str] | None = None
    ) -> InputError:
        """The error that says what is wrong with one key."""


def refuse(problem: str, valid: str) -> PydanticCustomError:
    """An error for validators to raise; it becomes an InputError with these words."""
    # Braces would be taken for fields of pydantic's own template.
    return PydanticCustomError("refused", "{problem}", {"problem": problem, "valid": valid})


def _duration(value: object) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise refuse(str(error), DURATION_FORMS) from None


def _positive_duration(value: object) -> float:
    seconds = _duration(value)
    if seconds <= 0:
        raise refuse("the duration must be longer than nothing", DURATION_FORMS)
    return seconds


def _size(value: object) -> int:
    try:
        size = parse_size(value)
    except ValueError as error:
        raise refuse(str(error), SIZE_FORMS) from None
    if size <= 0:
        raise refuse("the size must be larger than nothing", SIZE_FORMS)
    return size


_as_duration = PlainSerializer(format_duration, return_type=str, when_used="json-unless-none")
#: Seconds, written as in units.DURATION_FORMS.
Duration = Annotated[float, BeforeValidator(_duration), _as_duration]
#: Seconds, more than 0.
PositiveDuration = Annotated[float, BeforeValidator(_positive_duration), _as_duration]
#: Bytes, written as in units.SIZE_FORMS.
Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size, return_type=str, when_used="json-unless-none"),
]
Count = Annotated[int, Field(ge=1)]


def nearest(word: object, words: Sequence[str]) -> str | None:
    """The one of `words` that was probably meant, or None."""
    close = difflib.get_close_matches(str(word).lower(), [w.lower() for w in words], 1, 0.6)
    return next((w for w in words if close and w.lower() == close[0]), None)


def one_of(word: object, words: Sequence[str]) -> str:
    """The valid words as a text, with the one that was probably meant."""
    hint = nearest(word, words)
    listed = ", ".join(words) or "none"
    return f"{listed} (did you mean {hint!r}?)" if hint else listed


class _Described(str):
    """Text that InputError shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shown(value: Any) -> Any:
    """What was found, short enough for a message."""
    text = reprlib.repr(value) if isinstance(value, (dict, list)) else repr(value)
    if value is None:
        return _Described("nothing")
    return _Described(text if len(text) <= 100 else text[:97] + "...")


def key_names(model: type[BaseModel]) -> list[str]:
    """The keys of a section as they are written in the file."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


def _field(section: type[BaseModel] | None, name: str | int) -> FieldInfo | None:
    fields = section.model_fields if section else {}
    return next((info for n, info in fields.items() if name in (n, info.alias)), None)


def _model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The section that holds the entry at `loc`."""
    found: type[BaseModel] | None = model
    parts = iter(loc[:-1])
    for part in parts:
        if isinstance(part, int):
            continue
        info = _field(found, part)
        found = None if info is None else _model_in(info.annotation)
        if info is not None and typing.get_origin(info.annotation) is dict:
            next(parts, None)  # the user's own name for a section, as in queues.batch
    return found


def _words_in(annotation: Any) -> list[str]:
    """The words of a Literal, also of an optional one."""
    if typing.get_origin(annotation) is typing.Literal:
        return [str(word) for word in typing.get_args(annotation)]
    return [word for part in typing.get_args(annotation) for word in _words_in(part)]


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "text",
    "bool": "true or false",
    "list": "a list, as in [a, b]",
    "tuple": "a list, as in [a, b]",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
}
_BOUNDS = {"greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "more than")}


def _convert(error: ErrorDetails, model: type[BaseModel], doc: Located) -> InputError:
    """One pydantic error in the words of this project."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    key = ""
    for part in error["loc"]:
        key = join_key(key, part)
    section = _model_at(model, error["loc"])
    if kind == "extra_forbidden" and section is not None:
        word = error["loc"][-1]
        return doc.problem(key, "unknown key", valid=one_of(word, key_names(section)))
    if kind == "missing":
        info = _field(section, error["loc"][-1])
        return doc.problem(key, "this key is required", valid=info.description if info else None)
    if kind == "refused":
        return doc.problem(key, context["problem"], found=shown(found), valid=context["valid"])
    if kind == "literal_error":
        info = _field(section, error["loc"][-1])
        words = _words_in(info.annotation) if info else []
        return doc.problem(key, "unknown word", found=shown(found), valid=one_of(found, words))
    if kind in _BOUNDS:
        name, words_of = _BOUNDS[kind]
        return doc.problem(
            key, "out of range", found=shown(found), valid=f"{words_of} {context[name]}"
        )
    expected = _TYPES.get(kind.removesuffix("_type"))
    if expected is not None:
        hint = "; put it in quotes" if expected == "text" and found is not None else ""
        if expected.endswith("number") and isinstance(found, str):
            hint = ", without quotes"
        return doc.problem(key, "wrong type", found=shown(found), valid=expected + hint)
    return doc.problem(key, error["msg"], found=shown(found))


def validate(
    model: type[M], data: Mapping[str, Any], where: Located
) -> tuple[M | None, list[InputError]]:
    """Build a model, or say everything that is wrong with the data."""
    try:
        return model.model_validate(dict(data)), []
    except ValidationError as error:
        return None, [_convert(e, model, where) for e in error.errors(include_url=False)]


def require_mapping(doc: Document, what: str) -> dict[str, Any]:
    """The data of a file that must be a mapping.

    Raises:
        InputError: it is empty or something else.
    """
    if not isinstance(doc.data, dict):
        found = "an empty file" if doc.data is None else f"a {type(doc.data).__name__}"
        raise InputError(
            f"a {what} file is a mapping of keys to values",
            file=doc.file,
            line=1,
            found=_Described(found),
        )
    return doc.data
