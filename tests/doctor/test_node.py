"""What a compute node says, and what it means."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpc_hpo.cli.main import cli
from hpc_hpo.doctor import probe
from hpc_hpo.doctor.node import Listener, judge, node_rows
from hpc_hpo.doctor.rows import Row
from hpc_hpo.errors import InputError
from hpc_hpo.preflight import versions_here
from tests.doctor.conftest import MakeSite
from tests.fakes.lsf import FakeLsf
from tests.pilot.schedulers import Replies

ANSWER: dict[str, Any] = {
    "host": "node7", "node": "", "python": [3, sys.version_info[1], 1], "executable": "/e/python",
    "arch": "ppc64le", "page_size": 65536, "glibc": ["glibc", "2.28"], "lock_is_free": False,
    "connected": "", "node_local": {"folder": "/mnt/bb/me", "free": 1 << 40}, "time": 0.0,
}  # fmt: skip


@pytest.fixture
def summit(site: MakeSite) -> Any:
    return site("summit", "address: 127.0.0.1")


def told(site: Any, **changes: Any) -> dict[str, Row]:
    here = versions_here().packages
    versions = {"parsl": here["parsl"], "numpy": here["numpy"], "hpc_hpo": "0.1.0", "h5py": "3.9"}
    answer = {**ANSWER, "versions": {**versions, **changes.pop("versions", {})}, **changes}
    listener = Listener("127.0.0.1")
    listener.delays += changes.get("delays", [0.01])
    return {row.check: row for row in judge(site, answer, listener)}


@pytest.fixture(autouse=True)
def no_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging needs a listener's facts alone."""
    monkeypatch.setattr(Listener, "port", 54000, raising=False)


def test_that_a_node_as_its_site_says_is_right(summit: Any) -> None:
    rows = told(summit)
    assert {row.state for row in rows.values()} == {"ok"}, rows
    assert rows["node"].found == "node7, ppc64le"


@pytest.mark.parametrize(
    ("changes", "check", "state", "words"),
    [
        ({"arch": "x86_64"}, "arch", "fail", "x86_64, the site's file says ppc64le"),
        ({"page_size": 4096}, "page_size", "fail", "4KiB, the site's file says 64KiB"),
        ({"glibc": ["glibc", "2.17"]}, "glibc", "fail", "2.17, the site's file says 2.28"),
        ({"glibc": ["glibc", "2.34"]}, "glibc", "ok", "2.34"),
        ({"lock_is_free": True}, "locks on the node", "warn", "granted there as well"),
        ({"lock_is_free": {"problem": "ENOLCK"}}, "locks on the node", "warn", "ENOLCK"),
        ({"connected": "timed out"}, "node reaches steering", "fail", "timed out"),
        ({"delays": [-12.0]}, "clock of the node", "warn", "12.0 s ahead"),
        ({"delays": [99.0]}, "clock of the node", "fail", "99.0 s behind"),
        ({"node_local": {"problem": "no such directory"}}, "node-local disk", "fail", "no such"),
        ({"node_local": {"folder": "/l", "free": 1 << 30}}, "node-local disk", "warn", "1.0 GiB"),
        ({"python": [3, 6, 8]}, "python on the node", "fail", "Python 3.6"),
        ({"versions": {"parsl": "1.0"}}, "parsl on the node", "fail", "Parsl 1.0"),
        (
            {"versions": {"h5py": "! ImportError: libhdf5.so"}},
            "h5py on the node",
            "fail",
            "libhdf5",
        ),
        ({"versions": {"numpy": "1.24.0"}}, "numpy on the node", "warn", "numpy 1.24.0"),
        ({"versions": {"numpy": "! ImportError: no"}}, "numpy on the node", "fail", "ImportError"),
        ({"host": socket.gethostname()}, "node", "warn", "which is this machine"),
    ],
)
def test_that_what_is_not_right_on_a_node_is_told(
    summit: Any, changes: dict[str, Any], check: str, state: str, words: str
) -> None:
    row = told(summit, **changes)[check]
    assert row.state == state and words in row.found
    assert row.remedy or state == "ok" or "clock" in check


def test_that_facts_the_site_does_not_state_are_offered(site: MakeSite) -> None:
    rows = told(site("slurm", "arch: ppc64le", "address: 127.0.0.1"))
    assert rows["glibc"].remedy == 'glibc: "2.28" in the site\'s file'
    assert rows["page_size"].remedy == "page_size: 64KiB in the site's file"


def test_that_the_probe_says_what_this_machine_is(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with Listener("127.0.0.1") as listener:
        task = {"address": listener.address, "port": listener.port, "token": listener.token,
                "node_local": str(tmp_path)}  # fmt: skip
        (tmp_path / "task.json").write_text(json.dumps(task))
        probe.main(tmp_path / "task.json")
        strange = probe.connect(listener.address, listener.port, "another token")
    (file,) = tmp_path.glob("answer-*.json")
    answer = json.loads(file.read_text())
    assert answer["connected"] == "" and len(listener.delays) == 1
    assert strange == "somebody else answers there"
    assert answer["lock_is_free"] is True  # nobody holds it here
    assert answer["versions"]["parsl"] == versions_here().packages["parsl"]
    assert answer["page_size"] == os.sysconf("SC_PAGE_SIZE") and answer["node_local"]["free"] > 0


def test_that_a_package_that_cannot_be_imported_is_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "PACKAGES", ("json", "no_such_package_here"))
    found = probe.versions()
    assert found["json"] == "2.0.9" and found["no_such_package_here"].startswith("! Module")


def test_that_the_local_site_s_node_is_this_machine(site: MakeSite, tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    rows = {row.check: row for row in node_rows(site("local"), folder)}
    assert rows["locks on the node"].found == "a lock held here is refused there"
    assert rows["node reaches steering"].state == "ok"
    assert not [row for row in rows.values() if row.state == "fail"]
    assert list(folder.iterdir()) == []


def test_that_a_python_that_cannot_run_the_probe_is_told(site: MakeSite, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'bad interpreter' >&2\nexit 1\n")
    python.chmod(0o755)
    (row,) = node_rows(site("local", f"python: {python}"), tmp_path)
    assert row.state == "fail" and "bad interpreter" in row.found


def test_that_a_job_nobody_pays_for_is_refused_before_it_is_submitted(
    summit: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="account"):
        node_rows(summit, tmp_path)


def test_that_a_refused_job_is_told_with_the_scheduler_s_words(summit: Any, tmp_path: Path) -> None:
    replies = Replies(bsub=[(255, "", "Invalid project. Job not submitted.")])
    (row,) = node_rows(summit, tmp_path, account="NO", caller=replies)
    assert row.state == "fail" and "Invalid project" in row.found


def test_that_a_job_that_does_not_start_is_cancelled_and_nothing_claimed(
    summit: Any, tmp_path: Path
) -> None:
    replies = Replies(
        bsub=[(0, "Job <7> is submitted to queue <batch>.", "")],
        bjobs=[(0, "7 PEND", "")], bkill=[(0, "", "")],
    )  # fmt: skip
    heard: list[str] = []
    (row,) = node_rows(summit, tmp_path, account="A", wait_s=0.1, tell=heard.append, caller=replies)
    assert row.state == "not checked" and "--wait" in row.remedy
    assert replies.count("bkill") == 1 and "job 7" in heard[0]
    assert not list(tmp_path.glob(".hpc-hpo-doctor-*"))


def test_that_the_command_prints_one_table_and_fails_by_its_worst_row(
    site: MakeSite, tmp_path: Path
) -> None:
    run: Callable[..., Any] = CliRunner().invoke
    done = run(cli, ["doctor", "--dir", str(tmp_path), "--job"])
    assert done.exit_code == 0, done.output
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["check", "found", "remedy"]
    assert any(row.startswith("ok") and "node reaches steering" in row for row in rows)

    site("slurm", "interface: ib77")
    done = run(cli, ["doctor", "--site", str(tmp_path / "site.yaml"), "--dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "checks fail" in done.stderr and "address" in done.stderr
    assert any(row.startswith("not checked") and "--job" in row for row in done.stdout.splitlines())


def test_that_a_job_through_jsrun_asks_the_node_not_the_batch_host(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site("summit", "address: 127.0.0.1", "poll: 0.5s", f"arch: {platform.machine()}",
         f"page_size: {os.sysconf('SC_PAGE_SIZE') // 1024}KiB", "node_local: /tmp")  # fmt: skip
    (tmp_path / "shared").mkdir()
    with FakeLsf(tmp_path / "lsf", nodes=1) as lsf:
        real = lsf.folder / "bin/jsrun"
        real.rename(real.with_name("jsrun-itself"))
        noting = f'echo called "$@" > {tmp_path}/called'
        real.write_text(f'#!/bin/sh\n{noting}\nexec {real}-itself "$@"\n')
        real.chmod(0o755)
        monkeypatch.setenv("PATH", lsf.env()["PATH"])
        monkeypatch.setenv("FAKE_LSF_DIR", str(lsf.folder))
        done = CliRunner().invoke(
            cli,
            ["doctor", "--site", str(tmp_path / "site.yaml"), "--dir", str(tmp_path / "shared"),
             "--job", "--account", "ABC123", "--wait", "40s"],
        )  # fmt: skip
    assert "job 1001 is to ask a node" in done.stderr
    rows = done.stdout.splitlines()
    for check in (
        "locks on the node", "node reaches steering", "launcher in a job", "node-local disk",
    ):  # fmt: skip
        (row,) = [row for row in rows if check in row]
        assert row.startswith(("ok", "warn")), done.output
    called = (tmp_path / "called").read_text()
    assert called.startswith("called -n 1 -r 1 -a 1 -c 42 -g 6 ") and "probe.py" in called


def test_that_a_wrong_wait_is_told() -> None:
    done = CliRunner().invoke(cli, ["doctor", "--wait", "soon"])
    assert done.exit_code == 2 and "--wait" in done.stderr
