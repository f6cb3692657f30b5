"""Files behind URLs, over fsspec: what tells one content from another, and reading from a byte on.

fsspec's HTTP file system reads a large file in many small requests. Here one request streams it,
with its `Range` and its answer's headers in our hands, so that a broken download goes on where it
stopped and a file that has changed meanwhile is noticed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

#: Seconds without an answer, and without a further byte, after which a connection is given up.
CONNECT_S, SILENCE_S = 30.0, 60.0
#: What servers and stores call that which changes with a file's content; the best first.
_VALIDATORS = (
    "ETag", "etag", "Content-MD5", "md5Hash", "content_md5", "version_id", "VersionId",
    "Last-Modified", "last_modified", "LastModified", "updated", "mtime", "modified",
)  # fmt: skip
#: HTTP statuses after which the same request may succeed.
_PASSING = (408, 409, 423, 425, 429)
_systems: dict[tuple[str, str], Any] = {}
_lock = threading.Lock()


class Changed(Exception):
    """The remote file is another one than when the download began."""


class Refused(OSError):
    """The server will give the same answer again: not there, or not allowed."""


def source_problem(source: str) -> str | None:
    """What keeps a URL from being opened, as far as no network is needed to see it."""
    import fsspec

    for part in source.split("::"):
        protocol = fsspec.utils.get_protocol(part) if "://" in part else part
        try:
            fsspec.get_filesystem_class(protocol)
        except ValueError:
            known = ", ".join(sorted(fsspec.available_protocols()))
            return f"no protocol {protocol!r} is known (known: {known})"
        except ImportError as error:
            return f"protocol {protocol} needs a package: {error}"
        if protocol in ("http", "https"):
            try:
                if not urlsplit(part).hostname:
                    return "the URL names no host"
                _ = urlsplit(part).port
            except ValueError as error:
                return f"not a URL: {error}"
    return None


def open_system(source: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """(the file system of a URL, the path in it); one for all URLs that are opened alike.

    Raises:
        Refused: its protocol cannot be opened.
    """
    if problem := source_problem(source):
        raise Refused(problem)
    import fsspec

    given = dict(options)
    protocol = fsspec.utils.get_protocol(source)
    if protocol in ("http", "https") and "::" not in source:
        protocol = "http"
        given = _http_options(given)
    with _lock:
        key = (f"{protocol}://{urlsplit(source).netloc}", repr(sorted(options.items())))
        if key not in _systems or "::" in source:
            # Without fsspec's own cache, which is one for each thread.
            system, path = fsspec.core.url_to_fs(source, skip_instance_cache=True, **given)
            _systems[key] = system
            return system, str(path)
    return _systems[key], str(_systems[key]._strip_protocol(source))


def _http_options(given: dict[str, Any]) -> dict[str, Any]:
    import aiohttp

    client = {
        # By default a request may last 5 minutes, however much comes.
        "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
        # Login nodes often reach the outside through a proxy (https_proxy).
        "trust_env": True,
        # The bytes as they lie on the server, for the checksum and for ranges.
        "auto_decompress": False,
        **given.get("client_kwargs", {}),
    }
    headers = {"Accept-Encoding": "identity", **given.get("headers", {})}
    return {**given, "client_kwargs": client, "headers": headers}


def validator_of(info: Mapping[str, Any]) -> str | None:
    """What a server says to tell one content of a file from another; None: nothing."""
    for key in _VALIDATORS:
        if info.get(key) not in (None, ""):
            return f"{key}={info[key]}"
    return None


def permanent(error: BaseException) -> bool:
    """Whether the same request would fail again."""
    if isinstance(error, Refused):
        return True
    status = getattr(error, "status", None)
    if isinstance(status, int) and status >= 400:
        return status < 500 and status not in _PASSING
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        # fsspec says so for whatever its last try met, also of a server that does not answer.
        return permanent(error.__cause__)
    return isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, ValueError))


def explain(error: BaseException) -> str:
    """An error of a transfer in a few words."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return explain(error.__cause__)
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"the server answers {status} {getattr(error, 'message', '')}".strip()
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def is_http(system: Any) -> bool:
    """Whether a file system is fsspec's for HTTP."""
    return type(system).__name__ == "HTTPFileSystem"


@contextlib.contextmanager
def reading(
    system: Any, path: str, start: int, validator: str | None, size: int | None
) -> Iterator[tuple[Any, int, int | None]]:
    """(stream, the byte it begins at, the file's size) of a remote file.

    Args:
        start: the byte to begin at; a server that cannot do so begins at 0.
        validator: of the bytes that are here already.
        size: of the whole file; None: not known.

    Raises:
        Changed: the file is no longer the one with this validator.
        Exception: whatever the protocol's library raises.
    """
    if not is_http(system):
        with system.open(path, "rb") as stream:
            if start:
                stream.seek(start)
            yield stream, start, size
        return
    headers = dict(system.kwargs.get("headers", {}))
    if start:
        headers["Range"] = f"bytes={start}-"
    # A block size of 0 gives the stream of one request; a size saves a request for it.
    with system.open(path, "rb", block_size=0, size=size or 1, headers=headers) as stream:
        answer = stream.r.headers
        now = validator_of(answer)
        if start and validator is not None and now is not None and now != validator:
            raise Changed
        if stream.r.status == 206:
            total = answer.get("Content-Range", "").rpartition("/")[2]
            yield stream, start, int(total) if total.isdigit() else size
        else:
            length = answer.get("Content-Length", "")
            yield stream, 0, int(length) if length.isdigit() else size
