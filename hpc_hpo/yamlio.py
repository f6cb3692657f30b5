"""YAML with line numbers and without YAML 1.1's surprises.

What a plain (unquoted) word means here, and why:

* ``1e-5`` is a number. YAML 1.1 wants a dot and reads a string.
* ``2:00`` is text. YAML 1.1 reads a sexagesimal integer, 120.
* only ``true`` and ``false`` are booleans; ``yes``, ``no``, ``on`` and ``off`` are text.
* ``010``, ``0x10``, ``1_000`` and ``2024-01-31`` are text: readers disagree on their value.
* keys of mappings are always text.

These are YAML 1.2's rules for numbers and booleans, less its octal and hexadecimal forms.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hpc_hpo.errors import InputError

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(
    r"([-+]?(\.[0-9]+|[0-9]+\.[0-9]*|(0|[1-9][0-9]*)(?=[eE]))([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
)
_QUOTE = 'a plain word cannot begin with *; put it in quotes, as in "*.pt"'


class _Loader(yaml.SafeLoader):
    """PyYAML's safe scanner, parser and composer with the resolvers of this module."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own protocol)

    def compose_node(self, parent: Any, index: Any) -> Any:
        # An alias would give one value two places, so a message could not name its line, and
        # nested aliases can grow without bound. A study file has no need of them.
        if self.check_event(yaml.AliasEvent):
            parser: Any = self  # PyYAML's types leave this method out
            mark = parser.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem=f"YAML aliases are not used here; {_QUOTE}", problem_mark=mark
            )
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver(
    _TAG + "bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")
)
_Loader.add_implicit_resolver(
    _TAG + "null", re.compile(r"(~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]
)


def join_key(parent: str, part: str | int) -> str:
    """The key path of an entry: ``space.lr``, ``inputs[0]``."""
    if isinstance(part, int):
        return f"{parent}[{part}]"
    return f"{parent}.{part}" if parent else part


@dataclass(frozen=True)
class Document:
    """One parsed YAML file.

    Attributes:
        data: dicts with text keys, lists, str, int, float, bool and None.
        file: the name that messages use, or None for text that came from no file.
        text: the source.
        lines: key path -> line, from 1.
        scalars: key path -> the scalar as it is written, without quotes.
        base: the file that this one extends; it may have written a key instead.
    """

    data: Any
    file: str | None
    text: str
    lines: dict[str, int] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    base: Document | None = None

    def line_of(self, key: str) -> int | None:
        """The line of a key path, or of its nearest ancestor that is written; else None."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return None

    def problem(
        self, key: str, problem: str, *, found: Any = None, valid: str | list[str] | None = None
    ) -> InputError:
        """The error that says what is wrong with one key, placed in the file that wrote it."""
        if self.base is not None and key not in self.lines and key in self.base.lines:
            return self.base.problem(key, problem, found=found, valid=valid)
        return InputError(
            problem, file=self.file, line=self.line_of(key), key=key, found=found, valid=valid
        )


class _Builder:
    """Turns composed nodes into plain data and notes where each was written."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.lines: dict[str, int] = {}
        self.scalars: dict[str, str] = {}

    def build(self, node: yaml.Node, key: str) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = []
            for i, item in enumerate(node.value):
                path = join_key(key, i)
                self.lines[path] = item.start_mark.line + 1
                items.append(self.build(item, path))
            return items
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        raise self._error(node, key, "this YAML tag is not used here", found=node.tag)

    def _mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode) or not name_node.value:
                raise self._error(
                    name_node, key, "a key must be a word; a {placeholder} needs quotes"
                )
            name = name_node.value
            path = join_key(key, name)
            line = name_node.start_mark.line + 1
            if name in result:
                raise InputError(
                    f"the key is given twice (first in line {self.lines[path]})",
                    file=self.file,
                    line=line,
                    key=path,
                    valid="each key once",
                )
            self.lines[path] = line
            result[name] = self.build(value_node, path)
        return result

    def _scalar(self, node: yaml.ScalarNode, key: str) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "null":
            return None
        self.scalars[key] = text
        if kind == "str":
            return text
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        try:
            if kind == "int":
                return int(text)
            if kind == "float":
                value = float(text.replace(".", "", 1) if text[-1:].isalpha() else text)
                if math.isinf(value) and text[-1:].isdigit():
                    raise ValueError("too large")
                return value
        except ValueError:
            raise self._error(node, key, "this number cannot be read", found=text[:40]) from None
        raise self._error(node, key, "this YAML tag is not used here", found=node.tag)

    def _error(
        self, node: yaml.Node, key: str, problem: str, found: str | None = None
    ) -> InputError:
        return InputError(
            problem, file=self.file, line=node.start_mark.line + 1, key=key or None, found=found
        )


def _read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputError: it is missing, is a folder, may not be read, or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError("there is no such file", file=str(path)) from None
    except IsADirectoryError:
        raise InputError("this is a folder", file=str(path), valid="a YAML file") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=str(path)) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "this byte is not UTF-8 text",
            file=str(path),
            line=raw.count(b"\n", 0, error.start) + 1,
            found=hex(raw[error.start]),
            valid="a text file saved as UTF-8",
        ) from None


def _syntax_error(error: yaml.YAMLError, text: str, file: str | None) -> InputError:
    """Say in the words of a user what PyYAML said in its own."""
    if isinstance(error, yaml.reader.ReaderError):
        at = error.position if isinstance(error.position, int) else 0
        line = text.count("\n", 0, at) + 1
        return InputError(
            f"a character that YAML does not allow, code {error.character}", file=file, line=line
        )
    if not isinstance(error, yaml.MarkedYAMLError):
        return InputError(f"not valid YAML: {error}", file=file)
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "not valid YAML"
    if "'\\t'" in problem:
        problem = "a tab stands where only spaces may; indent with spaces"
    elif "scanning an alias" in (error.context or ""):
        problem = _QUOTE
    elif "single document" in (error.context or ""):
        problem = "a second document begins here; one file holds one document"
    elif error.context and error.context_mark:
        problem += f" ({error.context}, begun in line {error.context_mark.line + 1})"
    return InputError(problem, file=file, line=mark.line + 1 if mark else None)


def load_yaml(source: Path | str, file: str | None = None) -> Document:
    """Parse a YAML file (a Path) or a text (a str).

    Args:
        source: where the file is, or the text itself.
        file: the name for messages; by default the path.

    Raises:
        InputError: the file cannot be read, is not UTF-8 or YAML, gives a key twice, or uses
            an alias, a tag, or a number too large for a double.
    """
    if isinstance(source, Path):
        file = file or str(source)
        text = _read_text(source)
    else:
        text = source
    builder = _Builder(file)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        data = None if node is None else builder.build(node, "")
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, file) from None
    except RecursionError:
        raise InputError("the brackets are nested too deeply", file=file) from None
    return Document(data, file, text, builder.lines, builder.scalars)
