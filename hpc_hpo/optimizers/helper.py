"""The helper process: fits models beside the steering loop, for all optimisers of one process.

It is a spawned Python that speaks pickled frames over its standard input and output, is nice to
everything else on a login node, takes a bounded share of one core, and ends with its parent, in the
middle of a fit too.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from hpc_hpo.model import Point

NICENESS = 10
#: Share of one core that fitting may take while few losses are known, and at least.
_SHARE, _LEAST_SHARE = 0.5, 0.05
#: Losses up to which it is the full share; beyond, it falls with their root.
_FULL_SHARE_UP_TO = 1000
#: Proposals made for each point that is taken while one batch is made, and bounds.
_AHEAD, _FEWEST, _MOST = 2.0, 4, 1024
#: Points in flight for each that is thought to be taken while the first batch is made.
_FIRST = 8
#: How long stop() waits for the process to end by itself, in seconds.
_GRACE_S = 5.0
#: How often the helper looks whether its parent is still there, in seconds.
_LOOK_S = 1.0

_LENGTH = struct.Struct("<Q")


def write_frame(pipe: IO[bytes], content: Any) -> None:
    """One message."""
    data = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> Any:
    """The next message.

    Raises:
        EOFError: the other side is gone.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


# -------------------------------------------------------------------- the parent's side


class Helper:
    """The process as its parent sees it. Nothing here ever waits for it.

    Args:
        command: starts the process; tests give another.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self._command = command or [sys.executable, "-m", "hpc_hpo.optimizers.helper"]
        self._numbers = itertools.count()
        self._receivers: dict[int, weakref.WeakMethod[Callable[[Any], None]]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.alive = False
        self.generation = 0  #: how often it has been started

    def start(self) -> None:
        """Start the process, again if it has died."""
        self.stop()
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HPC_HPO_HELPER": "1"}
        # One thread each: it shares a login node.
        env.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env,
            # Ctrl-C is for the steering process, which ends this one in order.
            start_new_session=True,
        )  # fmt: skip
        outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._process, self._outbox = process, outbox
        self.generation += 1
        self.alive = True
        threading.Thread(target=self._send, args=(process, outbox), daemon=True).start()
        threading.Thread(target=self._receive, args=(process,), daemon=True).start()

    def _send(self, process: subprocess.Popen[bytes], outbox: queue.SimpleQueue[Any]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while (content := outbox.get()) is not None:
                write_frame(process.stdin, content)
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()

    def _receive(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError, EOFError, pickle.UnpicklingError):
            while True:
                number, content = read_frame(process.stdout)
                reference = self._receivers.get(number)
                receiver = reference and reference()
                if receiver and process is self._process:
                    receiver(content)
        if process is self._process:
            self.alive = False

    def register(self, receiver: Callable[[Any], None]) -> int:
        """A number for an optimiser, whose proposals its method `receiver` takes (in another
        thread). Neither side keeps an optimiser that is used no more."""
        number = next(self._numbers)
        self._receivers[number] = weakref.WeakMethod(receiver)
        return number

    def forget(self, number: int) -> None:
        """Let an optimiser go."""
        self._receivers.pop(number, None)
        if self.alive:
            self.send(("drop", number, None))

    def send(self, content: Any) -> None:
        """Queue a message."""
        self._outbox.put(content)

    def wait(
        self, changed: threading.Condition, good: Callable[[], object], seconds: float
    ) -> None:
        """Give the process so long to bring about what is `good`.

        Args:
            changed: the receiver's, which it notifies.
        """
        with changed:
            changed.wait_for(good, seconds)

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End the process, and wait until it has ended."""
        process, self._process = self._process, None
        self.alive = False
        if process is None:
            return
        self._outbox.put(None)
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()


# -------------------------------------------------------------------- the process itself


@dataclass
class _Tenant:
    """One optimiser in the helper.

    Attributes:
        asked, told: events so far.
        fitted: (asked, told) as of the last batch.
        sent: points of the last batch, in the order in which they are taken.
        pace: points taken while the last batch was made, or asked for at once.
        short: more were asked for at once than there were.
    """

    search: Any
    asked: int = 0
    told: int = 0
    fitted: tuple[int, int] = (0, 0)
    sent: list[Point] = field(default_factory=list)
    pace: int = 0
    short: bool = False


class Fitter:
    """What the helper does with messages; the parent's threads and pipes are left outside.

    Args:
        answer: is given (number, proposals).
    """

    def __init__(self, answer: Callable[[tuple[int, dict[str, Any]]], None]) -> None:
        self._answer = answer
        self._tenants: dict[int, _Tenant] = {}

    def take(self, message: tuple[str, int, Any]) -> None:
        """Take one message in: new, adopted and told (the history), events, want, or drop."""
        kind, number, content = message
        if kind == "new":
            self._tenants[number] = _Tenant(_build(content))
        elif kind == "drop":
            self._tenants.pop(number, None)
        elif kind == "want":
            tenant = self._tenants[number]
            tenant.pace = max(tenant.pace, content)
            tenant.short = content > len(tenant.sent)
        elif kind in ("adopted", "told"):
            how = "adopt" if kind == "adopted" else "tell"
            for trial, value in zip(*content, strict=True):
                self._happen(self._tenants[number], (how, trial, value))
        else:
            tenant = self._tenants[number]
            for event in content:
                self._happen(tenant, event)

    @staticmethod
    def _happen(tenant: _Tenant, event: tuple[Any, ...]) -> None:
        if event[0] == "adopt":
            tenant.search.adopt(event[1], event[2])
            tenant.asked += 1
        else:
            tenant.search.tell(event[1], event[2])
            tenant.told += 1

    def work(self) -> float:
        """Make one batch for the optimiser that has learned most since its last one.

        Returns:
            seconds of CPU it took; 0 when no one needs a batch.
        """
        number, tenant = max(
            self._tenants.items(), key=lambda item: _need(item[1]), default=(-1, None)
        )
        if tenant is None or _need(tenant) <= 0:
            return 0.0
        begun = time.process_time()
        taken = tenant.asked - tenant.fitted[0]
        if tenant.fitted == (0, 0):
            # After a restart the history says nothing of the pace; thousands of points would be
            # old before they are made.
            taken = min(taken, max(1, (tenant.asked - tenant.told) // _FIRST))
        count = int(min(max(_AHEAD * max(taken, tenant.pace), _FEWEST), _MOST))
        tenant.pace, tenant.short = max(taken, tenant.pace // 2), False
        tenant.fitted = tenant.asked, tenant.told
        # What is left of the last batch is taken while this one is made: count it as in flight.
        known = tenant.search._keys
        left = [p for p in tenant.sent if tenant.search.space.key(p) not in known]
        points = tenant.search.fresh(count, left[: tenant.pace], tenant.asked)
        tenant.sent = points
        spent = time.process_time() - begun
        self._answer((number, {"points": points, "told": tenant.told, "cpu": spent}))
        return spent

    def rest(self, spent: float) -> float:
        """Seconds to do nothing after a batch that took `spent`."""
        most = max((tenant.told for tenant in self._tenants.values()), default=0)
        share = _SHARE * min(1.0, (_FULL_SHARE_UP_TO / max(most, 1)) ** 0.5)
        pause: float = spent * (1.0 / max(share, _LEAST_SHARE) - 1.0)
        return pause


def _need(tenant: _Tenant) -> float:
    """How much a new batch would bring; 0 when the last one is as good."""
    asked, told = tenant.asked - tenant.fitted[0], tenant.told - tenant.fitted[1]
    # More losses make better points; more points taken empty the queue.
    used = asked / max(len(tenant.sent), 1)
    return told / max(tenant.told, 1) + tenant.short + (used if used >= 0.5 else 0.0)


def _build(content: dict[str, Any]) -> Any:
    from hpc_hpo.optimizers.registry import create
    from hpc_hpo.space import Space

    space = Space.parse(content["space"], constraints=content["constraints"])
    return create(
        content["spec"],
        space,
        content["seed"],
        budget=content["budget"],
        signs=content.get("signs", ()),
    )


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: others may hold the parent's end of the pipe,
    inherited by a fork."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(0)


#: One helper serves all optimisers of a process.
_shared: Helper | None = None


def shared() -> Helper:
    """The helper of this process; it starts when it is first needed."""
    global _shared
    if _shared is None:
        _shared = Helper()
        atexit.register(stop_shared)
    return _shared


def stop_shared() -> None:
    """End the helper of this process, if it runs."""
    if _shared is not None:
        _shared.stop()


def main() -> None:
    """Serve until the parent is gone."""
    os.nice(NICENESS)
    # The pipe must carry nothing but frames.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read() -> None:
        try:
            while True:
                inbox.put(read_frame(sys.stdin.buffer))
        except EOFError:
            # The main thread may be deep in a fit that nobody waits for any more.
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()

    def answer(content: Any) -> None:
        try:
            write_frame(pipe, content)
        except OSError:
            os._exit(0)

    serve(Fitter(answer), inbox)


def serve(
    fitter: Fitter, inbox: queue.SimpleQueue[Any], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Fit as messages come, and rest after each fit; without an end."""
    while True:
        fitter.take(inbox.get())
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    fitter.take(inbox.get_nowait())
            spent = fitter.work()
            if not spent:
                break
            sleep(fitter.rest(spent))


if __name__ == "__main__":
    main()
