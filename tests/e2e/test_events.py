"""Points from Harvester's files through a real pilot, stopped and gone on with."""

from __future__ import annotations

import io
import json
import signal
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Workshop, wait_until

pytestmark = pytest.mark.slow
PAYLOAD = """
n=$(cat count 2>/dev/null || echo 0)
while [ $n -lt 5 ]; do
  n=$((n + 1)); echo $n > count.new; mv count.new count
  while [ $n = 3 ] && [ ! -e ../../../../go ]; do sleep 0.05; done
done
x=$(sed 's/.*"x": *\\([0-9.]*\\).*/\\1/' input.json)
echo "{\\"status\\": 0, \\"loss\\": $x}" > output.json
"""


def write(shop: Workshop) -> None:
    space = {"x": {"method": "uniform", "dimension": {"low": 0, "high": 1}}}
    (shop.folder / "space.json").write_text(json.dumps(space))
    (shop.folder / "count.sh").write_text(PAYLOAD)
    keys = {
        "evaluationExec": "sh count.sh", "searchSpaceFile": "space.json",
        "checkPointToSave": "count", "nParallelEvaluation": 2,
    }  # fmt: skip
    (shop.folder / "phpo.json").write_text(json.dumps(keys))


def event(number: str, x: float, **facts: Any) -> dict[str, Any]:
    sample = number.split("-")[3]
    point = {"id": sample, "parameters": {"x": x}, "loss": None}
    return {"eventRangeID": number, "hp_point": point, **facts}


def test_that_a_stopped_batch_leaves_checkpoints_and_goes_on(workshop: Workshop) -> None:
    write(workshop)
    ranges = [event("77-999-0-12-5", 0.25), event("77-999-0-13-5", 0.5)]
    (workshop.folder / "in.json").write_text(json.dumps({"999": ranges}))
    arguments = ("events", "phpo.json", "--in", "in.json", "--out", "o/event_status.dump")
    (workshop.folder / "o").mkdir()
    first = workshop.start(*arguments, "--both-names")
    wait_until(lambda: counts(workshop.folder) == [3, 3], 60)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 3
    dump = json.loads((workshop.folder / "o" / "event_status.dump").read_text())
    assert dump == json.loads((workshop.folder / "o" / "event_status.dump.json").read_text())
    entries = dump["999"]
    assert [e["type"] for e in entries] == ["checkpoint", "checkpoint"]
    assert [Path(e["path"]).name for e in entries] == ["77_12", "77_13"]
    for entry in entries:
        assert Path(entry["path"]).stat().st_size == entry["fsize"]
        with tarfile.open(entry["path"]) as tar:
            content = tar.extractfile("count")
            assert content is not None
            assert content.read() == b"3\n"
    (workshop.folder / "go").touch()
    code, output = workshop.call(*arguments)
    assert code == 0, output
    dump = json.loads((workshop.folder / "o" / "event_status.dump").read_text())
    assert dump == {
        "999": [
            {"eventRangeID": e["eventRangeID"], "eventStatus": "finished", "loss": x}
            for e, x in zip(ranges, (0.25, 0.5), strict=True)
        ]
    }
    [journal] = workshop.folder.glob("phpo-*/journal.jsonl")
    assert journal.read_text().count('"restored":"ckpt-000001-000001"') == 2


def counts(folder: Path) -> list[int]:
    """What the payloads have counted to; a file that is being replaced is looked at later."""
    found = []
    for path in folder.glob("phpo-*/trials/*/s000001/count"):
        text = path.read_text().strip()
        found.append(int(text) if text else 0)
    return found


def test_that_a_checkpoint_from_elsewhere_is_gone_on_with(workshop: Workshop) -> None:
    write(workshop)
    (workshop.folder / "count.sh").write_text(
        'echo "{\\"loss\\": $(cat count 2>/dev/null || echo 0)}" > output.json'
    )
    with tarfile.open(workshop.folder / "cp.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("count")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"4\n"))
    ranges = [event("7-8-0-1-5", 0.25, checkpoint="cp.tgz"), event("7-8-0-2-5", 0.5),
              event("7-8-0-3-5", 0.75, checkpoint="gone.tgz")]  # fmt: skip
    (workshop.folder / "in.json").write_text(json.dumps({"8": [{"eventRanges": ranges}]}))
    code, output = workshop.call("events", "phpo.json", "--in", "in.json", "--out", "out.json")
    assert code == 0, output
    assert "there is no checkpoint" in output
    dump = json.loads((workshop.folder / "out.json").read_text())
    assert [e["loss"] for e in dump["8"]] == [4.0, 0.0, 0.0]


def test_that_a_bad_file_changes_nothing(workshop: Workshop) -> None:
    write(workshop)
    (workshop.folder / "in.json").write_text('{"999": [{"eventRa')
    (workshop.folder / "out.json").write_text("as it was")
    code, output = workshop.call("events", "phpo.json", "--in", "in.json", "--out", "out.json")
    assert (code, "half written?" in output) == (2, True)
    assert (workshop.folder / "out.json").read_text() == "as it was"
    assert not list(workshop.folder.glob("phpo-*"))
