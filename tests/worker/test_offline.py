"""The guard of `network: deny`: real payloads that ask for a network."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.worker import offline
from hpc_hpo.worker.gate import usable
from hpc_hpo.worker.guard import sitecustomize
from hpc_hpo.worker.guard.sitecustomize import Policy, packed
from hpc_hpo.worker.offline import SWITCHES, allocation_hosts, expand_hosts
from tests.worker.bench import Bench

#: Of the networks kept for documentation (RFC 5737): nobody is there.
NOBODY = "192.0.2.1"
#: A connection to nobody is given up by the kernel after two minutes; a refusal takes no time.
AT_ONCE_S = 5.0


@pytest.fixture
def denied(bench: Bench) -> Bench:
    bench.task["network"] = {"switches": True, "deny": True, "open": []}
    return bench


@pytest.fixture
def server() -> Iterator[int]:
    """A web server of this host; its port."""
    made = http.server.HTTPServer(("", 0), http.server.BaseHTTPRequestHandler)
    made.RequestHandlerClass.do_GET = lambda self: self.send_error(418)  # type: ignore[attr-defined]
    made.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[attr-defined, assignment]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made.server_address[1]
    made.shutdown()
    thread.join()
    made.server_close()


def took(outcome: dict[str, Any]) -> float:
    return float(outcome["ended"] - outcome["started"])


def needs_gate() -> None:
    if not usable():
        pytest.skip("needs Linux 5.5 or later, on x86-64, ppc64le or aarch64")


def test_that_an_attempt_ends_the_slice_at_once_with_address_file_and_line(denied: Bench) -> None:
    denied.objective(f"""
        import urllib.request
        def train(config):
            urllib.request.urlopen("http://{NOBODY}:81/data.h5")
            return 1.0
    """)
    outcome = denied.run()
    assert took(outcome) < AT_ONCE_S
    error = outcome["error"]
    assert (outcome["end"], error["kind"]) == ("failed", "network"), outcome
    where = f"{denied.source / 'objective.py'}:4"
    assert f"connection to {NOBODY}:81 (http://{NOBODY}:81/data.h5) at {where}" in error["message"]
    assert len(outcome["network"]) == 1


def test_that_a_name_is_not_even_looked_up(denied: Bench) -> None:
    denied.objective("""
        import urllib.request
        def train(config):
            urllib.request.urlopen("https://data.example.org/x")
    """)
    outcome = denied.run()
    assert "look-up of data.example.org:443 (https://data.example.org/x)" in outcome["network"][0]


def test_that_a_child_python_inherits_the_guard_and_its_own_line_is_named(denied: Bench) -> None:
    (denied.source / "fetch.py").write_text(
        f"import socket\n\nsocket.create_connection(({NOBODY!r}, 80))\n"
    )
    denied.objective("""
        import subprocess, sys
        from pathlib import Path
        def train(config):
            subprocess.run([sys.executable, Path(__file__).with_name("fetch.py")], check=True)
    """)
    outcome = denied.run()
    assert took(outcome) < AT_ONCE_S
    assert (outcome["end"], outcome["error"]["kind"]) == ("failed", "network")
    assert f"{denied.source / 'fetch.py'}:3 in " in outcome["network"][0]


def test_that_a_swallowed_refusal_does_not_fail_the_trial_and_is_told(denied: Bench) -> None:
    denied.objective(f"""
        import urllib.request
        def train(config, trial):
            for _ in range(3 if trial.id == 7 else 0):
                try:
                    urllib.request.urlopen("http://{NOBODY}/")
                except Exception:
                    pass
            return 2.5
    """)
    worker = denied.worker()
    outcome = denied.run(worker)
    assert took(outcome) < AT_ONCE_S
    assert (outcome["end"], outcome["loss"]) == ("completed", 2.5)
    (told,) = outcome["network"]
    assert told.endswith("objective.py:6 (3 times)")
    assert "network" not in denied.run(worker, trial=8), "each slice has its own attempts"


def test_that_an_error_of_another_kind_stays_so_and_names_the_attempt(denied: Bench) -> None:
    denied.objective(f"""
        import socket
        def train(config):
            try:
                socket.create_connection(("{NOBODY}", 80))
            except OSError:
                pass
            raise ValueError("bad weights")
    """)
    error = denied.run()["error"]
    assert error["kind"] == "exception"
    assert "bad weights" in error["message"] and NOBODY in error["message"]


C_CONNECT = f"""
import ctypes, os, socket, struct
def connect(address, port, kind=socket.SOCK_STREAM):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.socket(socket.AF_INET, int(kind), 0)
    name = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton(address))
    if libc.connect(fd, name, len(name)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
NOBODY = "{NOBODY}"
"""


def test_that_code_which_is_not_python_is_refused_with_its_address(denied: Bench) -> None:
    needs_gate()
    denied.objective(C_CONNECT + "\ndef train(config):\n    connect(NOBODY, 80)\n")
    outcome = denied.run()
    assert took(outcome) < AT_ONCE_S
    assert (outcome["end"], outcome["error"]["kind"]) == ("failed", "network")
    assert f"connection to {NOBODY}:80 by code that is not Python" in outcome["error"]["message"]


def test_that_a_child_without_the_hook_is_refused_by_the_gate(denied: Bench) -> None:
    needs_gate()
    denied.command(
        f"""
        import json, subprocess, sys
        code = "import socket; socket.create_connection(('{NOBODY}', 80))"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
        loss = 1.0 if "unreachable" in done.stderr else 2.0
        json.dump({{"loss": loss}}, open("output.json", "w"))
        """
    )
    outcome = denied.run()
    assert (outcome["end"], outcome["loss"]) == ("completed", 1.0), outcome
    assert (
        f"{NOBODY}:80" in outcome["network"][0] and "-I -c import socket" in outcome["network"][0]
    )


def test_that_loopback_unix_sockets_and_this_host_stay_open(denied: Bench, server: int) -> None:
    own = [a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    denied.objective(
        C_CONNECT
        + f"""
import multiprocessing, os, tempfile, urllib.error, urllib.request

def train(config):
    for host in ["127.0.0.1", "localhost", socket.gethostname(), *{own!r}]:
        try:
            urllib.request.urlopen(f"http://{{host}}:{server}/", timeout=5)
        except urllib.error.HTTPError as answer:
            assert answer.code == 418
    os.close(connect("127.0.0.1", {server}))
    # How programs find out which address they have; nothing is sent.
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect((NOBODY, 80))
    os.close(connect(NOBODY, 80, socket.SOCK_DGRAM))
    with tempfile.TemporaryDirectory() as folder:
        end = socket.socket(socket.AF_UNIX)
        end.bind(folder + "/s")
        end.listen()
        socket.socket(socket.AF_UNIX).connect(folder + "/s")
    with multiprocessing.Manager() as manager:
        return float(manager.list([3])[0])
"""
    )
    outcome = denied.run()
    assert (outcome["end"], outcome["loss"]) == ("completed", 3.0), outcome
    assert "network" not in outcome


def test_that_hosts_which_the_study_opens_are_reached_for(denied: Bench) -> None:
    denied.task["network"]["open"] = ["192.0.2.0/28"]
    denied.objective(
        C_CONNECT
        + """
def train(config):
    hits = 0
    for address in (NOBODY, "192.0.2.77"):
        for reach in (lambda a: socket.create_connection((a, 80), 0.2), None):
            try:
                if reach:
                    reach(address)
            except TimeoutError:
                hits += 1
            except OSError as error:
                assert "refused by" in str(error) or address == NOBODY, error
    return float(hits)
"""
    )
    outcome = denied.run()
    assert outcome["end"] == "completed", outcome
    assert [text.split(" at ")[0] for text in outcome["network"]] == ["connection to 192.0.2.77:80"]


def test_that_the_switches_are_set_and_the_study_s_own_variables_win(denied: Bench) -> None:
    denied.task["env"] = {"WANDB_MODE": "disabled"}
    denied.objective("""
        import os
        from pathlib import Path
        def train(config):
            Path("seen").write_text(repr(dict(os.environ)))
            return 0.0
    """)
    denied.run()
    seen = eval((denied.dir / "seen").read_text())
    assert seen["WANDB_MODE"] == "disabled"
    assert seen["MLFLOW_TRACKING_URI"] == (denied.dir / "mlruns").as_uri()
    expected = {**SWITCHES, **{k: os.environ[k] for k in SWITCHES if k in os.environ}}
    assert {k: seen[k] for k in SWITCHES if k != "WANDB_MODE"}.items() <= expected.items()


def test_that_without_deny_there_is_neither_hook_nor_gate(bench: Bench) -> None:
    bench.task["network"] = {"switches": False, "deny": False, "open": []}
    bench.objective("""
        import os, sys
        def train(config):
            status = open("/proc/self/status").read()
            assert "guard" not in os.environ.get("PYTHONPATH", "")
            return float(status.split("Seccomp:")[1].split()[0])
    """)
    here = float(Path("/proc/self/status").read_text().split("Seccomp:")[1].split()[0])
    assert bench.run()["loss"] == here


def test_that_another_sitecustomize_still_runs(denied: Bench, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sitecustomize.py").write_text("import builtins; builtins.MINE = 4.0\n")
    denied.task["env"] = {"PYTHONPATH": str(tmp_path / "mine")}
    denied.objective("def train(config): return MINE\n")
    assert denied.run()["loss"] == 4.0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("n[1-3,07],login", ["n1", "n2", "n3", "n07", "login"]),
        ("r[1-2]n[08-10]-ib", [f"r{r}n{n}-ib" for r in (1, 2) for n in ("08", "09", "10")]),
        ("", []),
    ],
)
def test_that_slurm_s_host_lists_are_read(text: str, names: list[str]) -> None:
    assert list(expand_hosts(text)) == names


@given(st.lists(st.integers(0, 99_999), min_size=1, max_size=20), st.integers(1, 6))
def test_that_any_list_of_numbers_comes_back(numbers: list[int], width: int) -> None:
    names = [f"n{str(n).zfill(width)}" for n in numbers]
    text = f"n[{','.join(name[1:] for name in names)}]"
    assert list(expand_hosts(text)) == names


@given(st.text(alphabet="n[]1-2,9 x", max_size=12))
def test_that_no_host_list_is_an_error(text: str) -> None:
    assert len(list(expand_hosts(text))) <= 10_000 * 12


def test_that_the_allocation_is_known_under_each_scheduler(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("batch1\na1\na1\na2\n")
    assert allocation_hosts({"LSB_DJOB_HOSTFILE": str(tmp_path / "hosts")}) == {
        "batch1",
        "a1",
        "a2",
    }
    assert allocation_hosts({"LSB_MCPU_HOSTS": "b1 16 b2 16"}) == {"b1", "b2"}
    assert allocation_hosts({"PBS_NODEFILE": str(tmp_path / "none"), "MASTER_ADDR": "m"}) == {"m"}
    assert allocation_hosts({"SLURM_JOB_NODELIST": "c[1-2]"}) == {"c1", "c2"}


@given(st.ip_addresses())
def test_that_an_address_is_open_when_it_is_loopback_or_listed(address: Any) -> None:
    text = str(address)
    assert Policy({"open": [text]}).address_is_open(text, 1)
    if address.is_loopback:
        assert Policy({}).address_is_open(text, 1)
    mapped = f"::ffff:{text}" if address.version == 4 else text
    assert packed(mapped) == packed(text)


def test_that_names_are_open_by_their_host_s_short_or_full_name() -> None:
    policy = Policy({"open": ["h41n03", "db.site.gov"]})
    for name in (
        "h41n03",
        "H41N03.site.gov",
        "db.site.gov",
        "db",
        "localhost",
        None,
        "",
        "8.8.8.8",
    ):
        assert policy.name_is_open(name), name
    for name in ("h41n04", "db.evil.org", "example.org", b"example.org"):
        assert not policy.name_is_open(name), name


def test_that_a_name_server_is_open_for_names_alone() -> None:
    policy = Policy({"name_servers": ["192.0.2.53"]})
    assert policy.address_is_open("192.0.2.53", 53)
    assert not policy.address_is_open("192.0.2.53", 80)


def test_that_both_sides_of_the_guard_agree_on_its_words() -> None:
    assert (offline.VARIABLE, offline.MARK) == (sitecustomize.VARIABLE, sitecustomize.MARK)


def test_that_a_torn_line_of_the_log_is_passed_over(denied: Bench, tmp_path: Path) -> None:
    from hpc_hpo.worker.offline import attempts

    log = tmp_path / "log"
    record = {"call": "connect", "address": "a:1", "file": "f.py", "line": 2}
    log.write_text(json.dumps(record) + "\n" + json.dumps(record)[:20])
    assert attempts(log, 0) == ["connection to a:1 at f.py:2"]
    assert attempts(tmp_path / "none", 0) == []
