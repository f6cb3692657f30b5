"""Legal sequences of journal events, for the tests of all that reads a journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hpc_hpo.journal import Event

START = 1_700_000_000.0


def run(number: int = 1, at: float = START) -> Event:
    return {
        "e": "run",
        "run": number,
        "at": at,
        "host": "login1",
        "pid": 7,
        "versions": {"hpc_hpo": "0.1.0"},
    }


def asked(trial: int, point: dict[str, Any], at: float = START) -> Event:
    return {"e": "asked", "trial": trial, "point": point, "seed": trial, "at": at}


def submit(trial: int, number: int = 1, at: float = START) -> Event:
    return {"e": "submit", "run": 1, "trial": trial, "slice": number, "at": at}


def end(
    trial: int,
    number: int,
    how: str,
    state: str,
    *,
    at: float = START,
    seconds: float = 10.0,
    **more: Any,
) -> Event:
    return {
        "e": "end",
        "run": 1,
        "trial": trial,
        "slice": number,
        "end": how,
        "state": state,
        "loss": None,
        "started": at - seconds,
        "ended": at,
        "host": "node1",
        "block": "b0",
        "worker": "b0-w0",
        "at": at,
        **more,
    }


def block(name: str, state: str, at: float, **more: Any) -> Event:
    return {"e": "block", "block": name, "state": state, "at": at, **more}


def checkpoint(number: int, step: int) -> dict[str, Any]:
    return {"name": f"ckpt-{number:06d}-{step:06d}", "slice": number, "at": START, "step": step}


#: How a slice may end, and the state in which that may leave its trial.
ENDINGS = (
    ("completed", "completed"),
    ("paused", "paused"),
    ("failed", "paused"),
    ("failed", "failed"),
    ("lost", "paused"),
    ("lost", "failed"),
    ("fenced", "paused"),
    ("declined", "paused"),
    ("declined", "asked"),
)

#: For tests that write files: each example uses the one tmp_path anew, and a busy machine is
#: no reason to fail.
ON_FILES = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

floats = st.floats(allow_nan=True, allow_infinity=True)
texts = st.text('a\u00f6\0\n\r,"\\{\U0001f600\ud800\udc00', max_size=6)
points = st.dictionaries(
    st.sampled_from(["lr", "layers", "größe", "a/b"]),
    st.one_of(floats, st.integers(-5, 5), st.booleans(), texts, st.just([1, 2])),
    min_size=1,
)


@st.composite
def histories(draw: st.DrawFn, max_steps: int = 25) -> Sequence[Event]:
    """A legal journal: trials asked, run in slices, ended in every way, blocks coming and going."""
    events = [run()]
    open_slice: dict[int, int] = {}
    slices: dict[int, int] = {}
    count, at = 0, START
    for _ in range(draw(st.integers(0, max_steps))):
        at += draw(st.floats(0, 100))
        step = draw(st.sampled_from(["ask", "submit", "submit", "end", "end", "end", "other"]))
        idle = [t for t in slices if t not in open_slice]
        if step == "ask" or (step == "submit" and not idle) or not slices:
            slices[count] = 0
            segment = draw(st.sampled_from([None, "a", "b"]))
            own = {} if segment is None else {"segment": segment}
            events.append({**asked(count, draw(points), at), **own})
            count += 1
        elif step == "submit":
            trial = draw(st.sampled_from(idle))
            slices[trial] += 1
            open_slice[trial] = slices[trial]
            events.append(submit(trial, slices[trial], at))
        elif step == "end" and open_slice:
            trial = draw(st.sampled_from(sorted(open_slice)))
            number = open_slice.pop(trial)
            how, state = draw(st.sampled_from(ENDINGS))
            more: dict[str, Any] = {}
            if how == "completed":
                more["loss"] = draw(st.floats(allow_nan=False, allow_infinity=False))
            if how in ("failed", "lost"):
                more["error"] = {"kind": "exception", "message": draw(texts)}
                more["wasted_s"] = draw(st.floats(0, 10))
            if draw(st.booleans()):
                more["checkpoint"] = checkpoint(number, draw(st.integers(1, 9)))
            more["reports"] = [[draw(st.integers(0, 5)), {"loss": draw(floats)}]]
            events.append(end(trial, number, how, state, at=at, **more))
            if state in ("completed", "failed"):
                del slices[trial]
        else:
            events.append(
                draw(
                    st.sampled_from(
                        [
                            block("b0", "requested", at, requested=at),
                            block("b0", "running", at, started=at, deadline=at + 60, workers=2),
                            block("b0", "ended", at, ended=at),
                            {"e": "refused", "trial": 0, "slice": 1, "at": at},
                            {"e": "segment", "op": "rerun", "segment": "a", "at": at},
                            {"e": "segment", "op": "stop", "segment": "b", "at": at},
                            {"e": "stop", "run": 1, "at": at, "reason": "asked", "cpu": 0.5},
                        ]
                    )
                )
            )
    return events
