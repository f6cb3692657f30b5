"""Event files: both shapes in, results and checkpoints out, and what is wrong with a file."""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.contracts.events import (
    Event,
    adler32,
    checkpointed,
    finished,
    read_events,
    segment_of,
    status_file,
)
from hpc_hpo.errors import InputError
from hpc_hpo.study import Study, load_study

STUDY = """
name: s
command: [sh]
contract: evaluation
space: {lr: {float: [0, 1]}}
budget: {trials: 3}
"""


def event(number: str = "77-999-0-12-5", **facts: Any) -> dict[str, Any]:
    point = {"id": "12", "parameters": {"lr": 0.01}, "loss": None}
    return {"eventRangeID": number, "hp_point": {**point, **facts.pop("point", {})}, **facts}


def read(document: Any) -> dict[str, list[Event]]:
    return read_events(json.dumps(document), "/data/JobsEventRanges.json")


def test_that_both_shapes_are_read() -> None:
    wrapped = read({"999": [{"eventRanges": [event(checkpoint="cp.tgz"), event("77-999-0-13-5")]}]})
    bare = read({"999": [event(checkpoint="cp.tgz"), event("77-999-0-13-5")]})
    mixed = read({"999": [event(checkpoint="cp.tgz"), {"eventRanges": [event("77-999-0-13-5")]}]})
    assert wrapped == bare == mixed
    first, second = bare["999"]
    assert (first.task, first.sample, second.sample) == ("77", "12", "13")
    assert (first.checkpoint, second.checkpoint) == ("/data/cp.tgz", None)


def test_that_ids_stay_texts_and_jobs_without_events_are_none() -> None:
    jobs = read({"1": [], "2": [{}], "3": [{"eventRanges": []}], "4": [event("07-04-0-007-1")]})
    assert [len(own) for own in jobs.values()] == [0, 0, 0, 1]
    assert jobs["4"][0].sample == "007"


def test_that_what_harvester_adds_is_let_be() -> None:
    more = event(startEvent=1, lastEvent=1, LFN="x", GUID="y", scope="z")
    assert read({"999": [more]}) == read({"999": [event()]})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "not an event file; found 'list'"),
        ({"999": {}}, "999: not a list of events"),
        ({"999": [3]}, "999[0]: not an event"),
        ({"999": [{"eventRanges": {}}]}, "999[0].eventRanges: not a list"),
        (
            {"999": [event("77-999-12")]},
            "999[0].eventRangeID: not an event's id; found '77-999-12'",
        ),
        ({"999": [event(77)]}, "999[0].eventRangeID: not an event's id; found 77"),  # type: ignore[arg-type]
        ({"999": [{"eventRangeID": "1-2-3-4-5"}]}, "999[0].hp_point: no point"),
        ({"999": [event(point={"parameters": 3})]}, "999[0].hp_point: no point"),
        ({"999": [event(point={"loss": "low"})]}, "999[0].hp_point.loss: not a loss"),
        ({"999": [event(checkpoint=3)]}, "999[0].checkpoint: not a file's name"),
        ({"9": [event()], "8": [event()]}, "two events have this id; found '77-999-0-12-5'"),
    ],
)
def test_that_what_is_wrong_is_told_with_its_place(document: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(document)
    assert message in str(caught.value)
    assert "JobsEventRanges.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"999": [{"eventRangeID'])
def test_that_half_a_file_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match=r"j\.json"):
        read_events(text, "j.json")


def test_that_results_are_written_by_job() -> None:
    first, second = read({"999": [event()], "8": [event("77-8-0-13-5")]}).values()
    entries = [(first[0], finished(first[0], 0.0)), (second[0], finished(second[0], None))]
    assert status_file(entries) == {
        "999": [{"eventRangeID": "77-999-0-12-5", "eventStatus": "finished", "loss": 0.0}],
        "8": [{"eventRangeID": "77-8-0-13-5", "eventStatus": "failed"}],
    }
    for loss in (math.nan, math.inf):
        assert finished(first[0], loss)["eventStatus"] == "failed"


def test_that_a_checkpoint_s_entry_says_how_to_verify_it(tmp_path: Path) -> None:
    archive = tmp_path / "77_12"
    archive.write_bytes(b"Wikipedia")
    entry = checkpointed(archive)
    # The example of the algorithm's own article: adler32("Wikipedia") = 11E60398.
    assert entry["chksum"] == "11e60398"
    assert re.fullmatch(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", entry.pop("guid"))
    assert entry == {"path": str(archive), "fsize": 9, "type": "checkpoint", "chksum": "11e60398"}


@given(st.binary(max_size=300))
def test_that_checksums_have_eight_digits(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("a") / "f"
    path.write_bytes(content)
    assert adler32(path) == f"{zlib.adler32(content):08x}"


def study(folder: Path, more: str = "") -> Study:
    (folder / "study.yaml").write_text(STUDY + more)
    return load_study(folder / "study.yaml")


def test_that_a_model_s_id_names_a_segment(tmp_path: Path) -> None:
    plain = study(tmp_path)
    assert segment_of(plain, {"lr": 1}) == (None, {"lr": 1.0})
    several = study(tmp_path, "segments: [{name: a}, {name: '7'}]\n")
    assert segment_of(several, [1, {"lr": 1}]) == ("7", {"lr": 1.0})
    assert segment_of(several, ["a", {"lr": 1}]) == ("a", {"lr": 1.0})
    for study_, point, message in (
        (plain, [0, {"lr": 1}], "has no segments"),
        (plain, {"lr": 2}, "lr: not a valid value"),
        (several, {"lr": 1}, "without its segment"),
        (several, [2, {"lr": 1}], "no such segment; found 2; valid: 0 to 1"),
        (several, ["b", {"lr": 1}], "no such segment; found 'b'"),
        (several, [True, {"lr": 1}], "no such segment"),
        (several, ["a", 3], "not a point"),
    ):
        with pytest.raises(InputError) as caught:
            segment_of(study_, point)
        assert message in str(caught.value)
