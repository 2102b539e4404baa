"""Processes that touch files for the daemon, one for each failure domain that is worked on.

One that makes no progress within :data:`PATIENCE` is killed. A process that waits in the kernel cannot be: it is left
behind, holding nothing, until the kernel lets go of it. Meanwhile whatever is to go to the same place fails at once,
for each new process would only be one more that waits there.
"""

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from rotator.adapters.isolated import start_isolated
from rotator.adapters.sink_helper import ANSWER, BEGUN, KEPT, LENGTH, Request
from rotator.core.model import FailureDomain
from rotator.ports import Bring, Ending

PATIENCE: Final = timedelta(seconds=20)
"""How long a helper may do nothing at all."""

STOP_PATIENCE: Final = timedelta(seconds=2)
"""How long what was begun may take to end when the daemon stops."""

DEATH_PATIENCE: Final = timedelta(seconds=1)
"""How long a helper that was killed may take to end; a machine may be busy."""

LEFT_BEHIND_AT_MOST: Final = 2
"""Helpers that wait in the kernel for one file system, before no more is tried there."""

HELPER: Final = "rotator.adapters.sink_helper"


class Helpers:
    """The helpers of all domains. Safe to use from several threads, one at a time for each domain."""

    def __init__(self, *, patience: timedelta = PATIENCE, module: str = HELPER) -> None:
        self.patience = patience
        """May be changed at any time."""
        self._module = module
        self._idle: dict[FailureDomain, _Helper] = {}
        self._left: list[tuple[FailureDomain, FailureDomain, _Helper]] = []
        """Helpers that were killed and are still there, each with its file system and the domain that it was for."""
        self._changing: Final = threading.Lock()
        self._cancelled: Final = os.eventfd(0, os.EFD_CLOEXEC)
        self._stopping = False

    def __del__(self) -> None:
        for helper in self._idle.values():
            helper.close()
        os.close(self._cancelled)

    @property
    def idle(self) -> dict[FailureDomain, int]:
        """The process ids of the helpers that have nothing to do."""
        with self._changing:
            return {domain: each.pid for domain, each in self._idle.items() if not each.ended.is_set()}

    @property
    def left_behind(self) -> list[int]:
        """The process ids of the helpers that were killed and are still there."""
        with self._changing:
            return [helper.pid for _, _, helper in self._left]

    def do(self, domain: FailureDomain, beneath: FailureDomain, request: Request, bring: Bring) -> None:
        """Have a helper do what is asked for, and bring what came of each item.

        ``beneath``: the file system, which is the domain itself unless that is of one sink that hung. What was never
        begun is not brought.
        """
        if self._stopping or not request.items:
            return
        task = _Task(request, bring)
        if problem := self._hangs(domain, beneath):
            task.end(problem, hung=True)
            return
        with self._changing:
            helper = self._idle.pop(domain, None)
        if helper is not None and self._ask(helper, task, domain, beneath):
            return
        try:
            helper = _Helper(self._module)
        except OSError as error:
            task.end(f"no process could be started to touch it: {error.strerror or error}")
            return
        if not self._ask(helper, task, domain, beneath):
            task.end(_ENDED)

    def cancel(self) -> None:
        """Begin nothing more. What was begun gets a moment to end."""
        with self._changing:
            self._stopping = True
            idle, self._idle = self._idle, {}
        os.eventfd_write(self._cancelled, 1)
        for helper in idle.values():
            helper.close()

    def _hangs(self, domain: FailureDomain, beneath: FailureDomain) -> str:
        """Return why nothing is to be tried in a domain now; empty when something may be."""
        with self._changing:
            left = [whose for where, whose, _ in self._left if where == beneath]
        if domain not in left and len(left) < LEFT_BEHIND_AT_MOST:
            return ""
        where = beneath.partition(":")[2].rpartition("#")[0] or "/"
        return (
            f"the file system at {where} hangs: a process of ours waits there in the kernel and cannot be killed. "
            "Nothing more is tried before it is let go: see to the server or the device below it"
        )

    def _ask(self, helper: "_Helper", task: "_Task", domain: FailureDomain, beneath: FailureDomain) -> bool:
        """Have one helper do it; False if that ended before it began with anything."""
        try:
            complete = helper.ask(task, self._cancelled, lambda: self.patience)
        except TimeoutError:
            self._lose(helper, domain, beneath)
            seconds = f"{self.patience.total_seconds():g} s"
            if task.begun:
                task.end_begun(f"the file system did not answer within {seconds}", hung=True)
            else:
                task.end(f"the process that is to touch it did nothing for {seconds}: is the machine overloaded?")
            return True
        except OSError:
            helper.close()
            began = bool(task.begun or task.ended)
            task.end_begun(_ENDED)
            return began
        with self._changing:
            keep = complete and not self._stopping
            if keep:
                self._idle[domain] = helper
        if not keep:
            self._lose(helper, domain, beneath)
        return True

    def _lose(self, helper: "_Helper", domain: FailureDomain, beneath: FailureDomain) -> None:
        """Kill a helper, and remember it for as long as that does not help."""
        helper.close()
        if helper.ended.wait(DEATH_PATIENCE.total_seconds()):
            return

        entry = beneath, domain, helper

        def gone() -> None:
            with self._changing:
                self._left.remove(entry)

        with self._changing:
            self._left.append(entry)
        helper.when_ended(gone)


_ENDED: Final = "the process that was to touch it ended: is the machine out of memory?"


class _Task:
    """A request, and what is known of its items."""

    def __init__(self, request: Request, bring: Bring) -> None:
        content = json.dumps(request).encode()
        self.frame: Final = LENGTH.pack(len(content)) + content
        self.begun: Final[set[int]] = set()
        """Under way."""
        self.ended: Final[set[int]] = set()
        self.count: Final = len(request.items)
        self._bring = bring
        self._answers = b""

    @property
    def over(self) -> bool:
        return len(self.ended) == self.count

    def take(self, answers: bytes) -> None:
        """Take in what the helper says. Answers may come in pieces."""
        self._answers += answers
        at = 0
        while len(self._answers) - at >= ANSWER.size:
            number, kind, length = ANSWER.unpack_from(self._answers, at)
            end = at + ANSWER.size + length
            if end > len(self._answers):
                break
            text = self._answers[end - length : end].decode("utf-8", "replace")
            at = end
            if kind == BEGUN:
                self.begun.add(number)
            else:
                self._end(number, Ending(text, kept=kind == KEPT))
        self._answers = self._answers[at:]

    def end(self, problem: str, *, hung: bool = False) -> None:
        """Bring a problem for all that is not done."""
        for number in range(self.count):
            if number not in self.ended:
                self._end(number, Ending(problem, hung=hung))

    def end_begun(self, problem: str, *, hung: bool = False) -> None:
        """Bring a problem for what is under way."""
        for number in sorted(self.begun):
            self._end(number, Ending(problem, hung=hung))

    def _end(self, number: int, ending: Ending) -> None:
        self.begun.discard(number)
        self.ended.add(number)
        self._bring(number, ending)


class _Helper:
    """The parent's end of one helper."""

    def __init__(self, module: str) -> None:
        self._process, self._socket = start_isolated(module)
        self._socket.settimeout(0)
        self.ended: Final = threading.Event()
        self._then: Callable[[], None] = _nothing
        self._ending: Final = threading.Lock()
        threading.Thread(target=self._reap, name="rotator-reaper", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, task: _Task, cancelled: int, patience: Callable[[], timedelta]) -> bool:
        """Send the request and take in the answers; False when it was ``cancelled`` before they were complete.

        Raise :class:`TimeoutError` when nothing comes for too long, another :class:`OSError` when the helper is gone.
        """
        to_send = memoryview(task.frame)
        poll = select.poll()
        poll.register(cancelled, select.POLLIN)
        give_up_at: float | None = None
        while not task.over:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if to_send else 0))
            wait = patience().total_seconds() if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            ready = dict(poll.poll(wait * 1000))
            if not ready:
                if give_up_at is not None:
                    return False
                raise TimeoutError
            if cancelled in ready:
                poll.unregister(cancelled)
                give_up_at = time.monotonic() + STOP_PATIENCE.total_seconds()
                if to_send:
                    return False
                self._socket.shutdown(socket.SHUT_WR)
            events = ready.get(self._socket.fileno(), 0)
            if events & select.POLLOUT and to_send:
                to_send = to_send[self._socket.send(to_send) :]
            elif events:
                answers = self._socket.recv(1 << 16)
                if not answers:
                    if give_up_at is not None:
                        return False
                    raise ConnectionResetError
                task.take(answers)
        return True

    def close(self) -> None:
        """Kill it, if it is there; never waits."""
        self._socket.close()
        if not self.ended.is_set():
            self._process.kill()

    def when_ended(self, then: Callable[[], None]) -> None:
        """Call ``then`` once it has ended, at once if it has."""
        with self._ending:
            if not self.ended.is_set():
                self._then = then
                return
        then()

    def _reap(self) -> None:
        self._process.wait()
        with self._ending:
            self.ended.set()
        self._then()


def _nothing() -> None:
    """Nobody waits for the end of this one."""
