"""A real Slurm on this machine: a controller and several node daemons, as the user who asks.

Needs neither root, systemd, cgroups, munge nor a database. Its nodes are names only: all of them
are this machine, told apart by their ports. GPUs are device files that everybody may open.
"""

from __future__ import annotations

import contextlib
import getpass
import glob
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

from tests.slurm.netns import Namespaces

#: What has to be installed, by the names of Debian's packages.
PACKAGES = "slurmctld slurmd slurm-client"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
#: For a controller whose clock runs faster: Debian's package faketime.
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")


def missing(speed: int = 1) -> str:
    """What is not installed here, as a sentence; "" when all is there."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    if absent:
        return f"needs a Slurm ({', '.join(absent)} not found): apt-get install {PACKAGES}"
    if speed != 1 and not glob.glob(FAKETIME):
        return "needs libfaketime: apt-get install faketime"
    return ""


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    # Test processes side by side look in ranges of their own.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for first in range(21800 + 2000 * (worker % 4), 30000, count):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return first
    raise RuntimeError("no free ports")


class SlurmCluster:
    """Starts on entry, leaves nothing behind on exit.

    Args:
        folder: for its state; made.
        nodes, cpus, gpus: the nodes n1, n2, ..., and the shape of each.
        speed: how many times faster the controller's clock runs. A limit of one minute then kills
            after 60 / speed seconds and some; squeue cannot tell elapsed times.
        apart: namespaces for the nodes, which then have no network but the way to here.
    """

    def __init__(
        self, folder: Path, *, nodes: int = 4, cpus: int = 2, gpus: int = 2, speed: int = 1,
        apart: Namespaces | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.nodes, self.speed, self.apart = folder, nodes, speed, apart
        self.config = folder / "slurm.conf"
        self.env = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(self.config)}
        folder.mkdir(parents=True)
        (folder / "state").mkdir()
        port = free_ports(nodes + 1)
        user, host = getpass.getuser(), socket.gethostname().partition(".")[0]
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}({apart.controller if apart else '127.0.0.1'})",
            "SlurmctldPort": port,
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/none",
            # A requeued job may start once its old credential has expired.
            "AuthInfo": "cred_expire=5",
            "CredType": "cred/none",
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "spool-%n",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "slurmd-%n.pid",
            "SlurmctldLogFile": folder / "slurmctld.log",
            "SlurmdLogFile": folder / "slurmd-%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "CommunicationParameters": "" if apart else "NoCtldInAddrAny,NoInAddrAny",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            # One line for each job that ended, with its state.
            "JobCompType": "jobcomp/filetxt",
            "JobCompLoc": folder / "ended.txt",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=2,bf_interval=2",
            "KillWait": 2,
            "MinJobAge": 600,
            "SlurmdTimeout": 10 if speed == 1 else 600,
            # A node that comes back is used again.
            "ReturnToService": 2,
            "SlurmdParameters": "config_overrides",
            "GresTypes": "gpu",
        }
        lines = [f"{key}={value}" for key, value in settings.items() if value != ""]
        lines.append(
            f"NodeName=n[1-{nodes}] NodeHostname={host} "
            f"NodeAddr={apart.addresses if apart else '127.0.0.1'} "
            f"Port=[{port + 1}-{port + nodes}] CPUs={cpus} Boards=1 SocketsPerBoard=1 "
            f"CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=4000 Gres=gpu:{gpus} State=UNKNOWN"
        )
        lines.append("PartitionName=debug Nodes=ALL Default=YES MaxTime=60 DefaultTime=1 State=UP")
        self.config.write_text("\n".join([*lines, ""]))
        devices = ",".join(_DEVICES[:gpus])
        (folder / "gres.conf").write_text(f"NodeName=n[1-{nodes}] Name=gpu File={devices}\n")
        # Never looked for: the version that is found by itself stops slurmd where none is mounted.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def __enter__(self) -> SlurmCluster:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _start(self) -> None:
        env = dict(self.env)
        if self.speed != 1:
            env["LD_PRELOAD"] = glob.glob(FAKETIME)[0]
            env["FAKETIME"] = f"+0 x{self.speed}"
        subprocess.run(["slurmctld", "-f", str(self.config)], env=env, check=True)
        for number in range(1, self.nodes + 1):
            self.start_node(number)
        self.wait(lambda: self.call("sinfo", "-h", "-N", "-o", "%t").count("idle") == self.nodes)

    def wait(self, condition, seconds: float = 30.0) -> None:
        """Wait for a condition of the cluster."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                log = (self.folder / "slurmctld.log").read_text()[-2000:]
                raise AssertionError(f"waited in vain; the controller's log ends:\n{log}")
            time.sleep(0.1)

    def call(self, *argv: str) -> str:
        """A Slurm command's output."""
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=20)
        return done.stdout

    def queue(self) -> list[list[str]]:
        """[job id, state, nodes] of every job that has not ended."""
        lines = self.call("squeue", "-h", "-o", "%i %t %N").splitlines()
        return [line.split() for line in lines]

    def ended(self) -> dict[str, str]:
        """The state in which each job ended; of a requeued one, the last."""
        try:
            lines = (self.folder / "ended.txt").read_text().splitlines()
        except FileNotFoundError:
            return {}
        facts = [dict(w.split("=", 1) for w in line.split() if "=" in w) for line in lines]
        return {fact["JobId"]: fact["JobState"] for fact in facts}

    def _pid(self, name: str) -> int | None:
        try:
            return int((self.folder / f"{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def start_node(self, number: int) -> None:
        """Start a node's daemon."""
        (self.folder / f"spool-n{number}").mkdir(exist_ok=True)
        inside = self.apart.inside(number) if self.apart is not None else []
        subprocess.run(
            [*inside, "slurmd", "-N", f"n{number}", "-f", str(self.config)],
            env=self.env, check=True,
        )  # fmt: skip

    def kill_daemon(self, number: int) -> None:
        """Kill a node's daemon; its steps go on, out of the controller's reach."""
        pid = self._pid(f"slurmd-n{number}")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def give_up(self, number: int) -> None:
        """Let the controller take a node for dead now; by itself it takes half a minute."""
        self.call("scontrol", "update", f"NodeName=n{number}", "State=DOWN", "Reason=silent")

    def kill_node(self, number: int) -> None:
        """A node that loses its power: the daemon and all that it has started are gone."""
        pid = self._pid(f"slurmd-n{number}")
        steps = self._steps(number)
        below = [p for step in steps for p in step.children(recursive=True)]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for process in [*steps, *below]:
            _kill(process)

    def _steps(self, number: int | None = None) -> list[psutil.Process]:
        """The step daemons of a node, or of all: those that hold its log open."""
        logs = {
            str(self.folder / f"slurmd-n{n}.log")
            for n in range(1, self.nodes + 1)
            if number in (None, n)
        }
        found = []
        for process in psutil.process_iter(["name"]):
            if process.info["name"].startswith("slurmstepd"):
                with contextlib.suppress(psutil.Error):
                    if logs & {file.path for file in process.open_files()}:
                        found.append(process)
        return found

    def stop(self) -> None:
        """Cancel the jobs, end the daemons, kill what is left."""
        if self._pid("slurmctld"):
            self.call("scancel", "-f", "-u", getpass.getuser())
            end = time.monotonic() + 6
            while self.queue() and time.monotonic() < end:
                time.sleep(0.1)
        for process in self._steps():
            for child in process.children(recursive=True):
                _kill(child)
            _kill(process)
        daemons = []
        for name in ["slurmctld", *(f"slurmd-n{n}" for n in range(1, self.nodes + 1))]:
            with contextlib.suppress(psutil.NoSuchProcess):
                daemon = psutil.Process(self._pid(name) or 0)
                if daemon.name().startswith(name.partition("-")[0]):
                    daemon.terminate()
                    daemons.append(daemon)
        _, stubborn = psutil.wait_procs(daemons, timeout=5)
        for daemon in stubborn:
            _kill(daemon)


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
