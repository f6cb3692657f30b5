"""Options for files of an outside service. Imports nothing that such a service's image lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

#: A command, as click's decorators take and give it.
Command = TypeVar("Command", bound=Callable[..., Any])


def file_option(flag: str, name: str, text: str) -> Callable[[Command], Command]:
    """An option for a file that a command needs, read or written."""
    path = click.Path(path_type=Path)
    return click.option(flag, name, type=path, required=True, metavar="FILE", help=text)
