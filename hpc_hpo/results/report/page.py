"""The page itself: one file with its data, styles, scripts and plotly.js inside.

What people typed goes into the page as JSON, in which no "<" is left, and the page's scripts put it
into text nodes or, escaped, into plots. Besides, the page's policy names its scripts by their
hashes, so that no other could run, and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hpc_hpo.fsio import write_atomic
from hpc_hpo.results.report.compare import comparison
from hpc_hpo.results.report.content import content
from hpc_hpo.results.report.material import Material
from hpc_hpo.results.table import strict_json
from hpc_hpo.version import __version__

#: In the order in which they are joined.
SCRIPTS = (
    "core.js", "plots.js", "overview.js", "front.js", "search.js", "parallel.js", "timeline.js",
    "lists.js", "compare.js", "simulated.js", "start.js",
)  # fmt: skip


def write_report(
    materials: Sequence[Material], path: Path, more: Mapping[str, Any] | None = None
) -> int:
    """Write the page of one study, or of several over each other; its size in bytes.

    Args:
        more: content beyond the studies' own: `simulated`, of simulate/plot.py.

    Raises:
        StorageError: it cannot be written; an older file is left as it was.
    """
    found = content(materials[0]) if len(materials) == 1 else comparison(materials)
    page = render({**found, **(more or {}), "version": __version__}).encode()
    write_atomic(path, page)
    return len(page)


def render(found: dict[str, Any]) -> str:
    """The page around its content."""
    from plotly.offline import get_plotlyjs

    plotly = _script(get_plotlyjs())
    own = _script("(() => {\n" + "".join(map(_file, SCRIPTS)) + "})();\n")
    policy = (
        f"default-src 'none'; script-src '{_hash(plotly)}' '{_hash(own)}'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "STYLE": _file("style.css"),
        "DATA": json_in_html(found),
        "PLOTLY": plotly,
        "OWN": own,
    }
    # Split first: a part may hold what looks like another part's mark.
    page = _file("page.html").split("%%")
    return "".join(parts.get(piece, piece) for piece in page)


def json_in_html(value: Any) -> str:
    """JSON that may stand in a script element, whatever texts are in it. NaN is null there."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    """Numbers that are none as the texts that strict_json gives them."""
    if isinstance(value, float):
        return value if value - value == 0 else json.loads(strict_json(value))
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _file(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    """Text that may stand in a script element; parsers of HTML see line ends as \\n.

    Raises:
        ValueError: it would end its element.
    """
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("the script would end its element")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _hash(text: str) -> str:
    """As a Content-Security-Policy names a script."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
