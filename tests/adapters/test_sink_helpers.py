"""The processes that touch files: what they hold, when they end, and what becomes of the rest when one hangs."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.adapters.disk import lock_directory
from rotator.adapters.sink_helper import COMPARE, REMOVE, WRITE, Item, Request
from rotator.adapters.sinks.helpers import LEFT_BEHIND_AT_MOST, Helpers
from rotator.core.model import FailureDomain
from rotator.ports import Ending
from tests.errands import helpers_are_gone
from tests.patience import HANG_SECONDS, wait_until

DISK = FailureDomain("filesystem:/mnt/dead#0:45")
SILENT = "tests.adapters.silent_helper"
SHORT = timedelta(seconds=0.2)


@contextmanager
def helpers(*, patience: timedelta = timedelta(seconds=HANG_SECONDS), module: str = "") -> Iterator[Helpers]:
    made = Helpers(patience=patience, **({"module": module} if module else {}))
    yield made
    made.cancel()
    helpers_are_gone()


def request(*paths: Path | str, act: str = WRITE) -> Request:
    return Request(act, [], [Item(str(path), 0o640, f"token of {path}\n") for path in paths])


def ask(made: Helpers, wanted: Request, domain: FailureDomain = DISK) -> dict[int, Ending]:
    brought: dict[int, Ending] = {}
    made.do(domain, DISK, wanted, brought.__setitem__)
    return brought


def test_a_batch_is_written_by_one_process_and_compared_by_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / f"w{number}" / "token" for number in range(300)]
    with helpers() as made:
        assert ask(made, request(*paths)) == {number: Ending() for number in range(300)}
        (pid,) = made.idle.values()
        assert {path.read_text() for path in paths} == {f"token of {path}\n" for path in paths}
        paths[7].write_text("changed")
        paths[8].unlink()
        found = ask(made, request(*paths, act=COMPARE))
        assert [number for number, ending in sorted(found.items()) if ending.problem] == [7, 8]
        assert list(made.idle.values()) == [pid]


def test_a_file_goes_only_with_a_token_that_was_written_there(tmp_path: Path) -> None:
    """Read and deleted by the process of its file system, whatever the format; all else stays, for good."""
    ours = hashlib.sha256(b"a.b.c").hexdigest()
    contents = ["a.b.c\n", '{"token": "a.b.c"}', "TOKEN=a.b.c\nTOKEN_JTI=1\n", "d.e.f\n", "{", '{"token": 1}', ""]
    paths = [tmp_path / f"w{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    (tmp_path / "link").symlink_to(paths[3])
    os.mkfifo(tmp_path / "fifo")
    odd = [tmp_path / "link", tmp_path / "fifo", tmp_path, tmp_path / "w3" / "x"]
    items = [
        Item(str(path), 0, f"{'0' * 64} {ours}") for path in [*paths, *odd, tmp_path / "gone", tmp_path / "no" / "x"]
    ]
    with helpers() as made:
        found = ask(made, Request(REMOVE, [], items))
        assert sorted(number for number, ending in found.items() if ending.kept) == [*range(3, len(paths) + len(odd))]
        assert not any(ending.problem for ending in found.values() if not ending.kept)
        assert [path.exists() for path in paths] == [False] * 3 + [True] * 4
        paths[0].write_text("a.b.c")
        (kept,) = ask(made, Request(REMOVE, [str(tmp_path)], [items[0]])).values()
        assert kept.kept
        assert "which is rotator's own" in kept.problem


def test_each_domain_has_a_process_of_its_own(tmp_path: Path) -> None:
    with helpers() as made:
        ask(made, request(tmp_path / "a"))
        ask(made, request(tmp_path / "b"), FailureDomain("another"))
        assert len(set(made.idle.values())) == 2


def test_a_process_holds_no_lock_no_descriptor_and_no_word_of_what_the_daemon_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROTATOR_KEK", "of the daemon alone")
    listening = os.open(tmp_path / "something", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(listening, True)
    try:
        with helpers() as made, lock_directory(tmp_path):
            ask(made, request(tmp_path / "token"))
            (pid,) = made.idle.values()
            proc = Path(f"/proc/{pid}")
            wait_until(lambda: len(list((proc / "fd").iterdir())) == 3, "it has closed the directories of the batch")
            opened = sorted(str(each.readlink()).partition(":")[0] for each in (proc / "fd").iterdir())
            assert opened == ["/dev/null", "/dev/null", "socket"]
            assert b"ROTATOR_KEK" not in (proc / "environ").read_bytes()
            assert b"token of" not in (proc / "cmdline").read_bytes()
    finally:
        os.close(listening)


def test_it_imports_nothing_of_what_is_installed() -> None:
    """So that it starts in a moment and stays small."""
    code = "import sys, rotator.adapters.sink_helper; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-s", "-P", "-c", code],
        env={"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {name for name in done.stdout.split() if name.startswith("rotator.")}
    assert ours == {
        "rotator.adapters",
        "rotator.adapters.disk",
        "rotator.adapters.sink_helper",
        "rotator.errors",
        "rotator.told",
    }


def test_an_idle_process_that_ended_is_replaced(tmp_path: Path) -> None:
    with helpers() as made:
        ask(made, request(tmp_path / "a"))
        (pid,) = made.idle.values()
        os.kill(pid, 9)
        assert ask(made, request(tmp_path / "b")) == {0: Ending()}
        assert list(made.idle.values()) != [pid]


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from tests.adapters.test_sink_helpers import Helpers, ask, request\n"
        "made = Helpers()\n"
        "ask(made, request(sys.argv[1]))\n"
        "print(*made.idle.values(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "token")], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    wait_until(lambda: not Path(f"/proc/{int(done.stdout)}").exists(), "the helper has ended")


def hang(made: Helpers, wanted: Request, domain: FailureDomain = DISK) -> dict[int, Ending]:
    """Ask a helper that hangs with the second item; wait no longer once it has come to that."""
    brought: dict[int, Ending] = {}

    def bring(number: int, ending: Ending) -> None:
        brought[number] = ending
        made.patience = SHORT

    made.do(domain, DISK, wanted, bring)
    made.patience = timedelta(seconds=HANG_SECONDS)
    return brought


def test_what_hangs_is_brought_as_such_and_what_was_not_begun_is_not() -> None:
    """The process is killed; what it had done counts."""
    with helpers(module=SILENT) as made:
        brought = hang(made, request("/a", "/b", "/c", "/d"))
        assert brought == {0: Ending(), 1: Ending("the file system did not answer within 0.2 s", hung=True)}
        assert made.idle == {}


def test_a_process_that_begins_with_nothing_fails_what_it_was_given() -> None:
    """It says nothing of the sinks: none of them hangs."""
    with helpers(patience=SHORT, module=SILENT) as made:
        brought = ask(made, request("/silent", "/b"))
        assert [ending.hung for ending in brought.values()] == [False, False]
        assert "did nothing for 0.2 s" in brought[0].problem


def test_a_process_that_ends_fails_what_it_was_at_and_nothing_else() -> None:
    with helpers(module=SILENT) as made:
        brought = ask(made, request("/ends", "/b", "/c"))
        assert sorted(brought) == [0, 1]
        assert (brought[0].problem, brought[1].hung) == ("", False)
        assert "ended" in brought[1].problem


def test_one_that_cannot_be_started_fails_what_it_was_to_do() -> None:
    with helpers(module="rotator.there_is_no_such_module") as made:
        brought = ask(made, request("/a", "/b"))
        assert all("ended" in ending.problem and not ending.hung for ending in brought.values())
        assert len(brought) == 2


def test_a_stop_does_not_wait_for_what_hangs() -> None:
    with helpers(module=SILENT) as made:
        brought: dict[int, Ending] = {}
        worker = threading.Thread(target=made.do, args=(DISK, DISK, request("/a", "/b"), brought.__setitem__))
        worker.start()
        wait_until(lambda: 0 in brought, "it is under way")
        made.cancel()
        worker.join(HANG_SECONDS)
        assert sorted(brought) == [0]
        assert ask(made, request("/c")) == {}


def test_what_was_begun_is_finished_at_a_stop(tmp_path: Path) -> None:
    with helpers() as made:
        paths = [tmp_path / f"w{number}" / "token" for number in range(2_000)]
        brought: dict[int, Ending] = {}
        worker = threading.Thread(target=made.do, args=(DISK, DISK, request(*paths), brought.__setitem__))
        worker.start()
        wait_until(lambda: bool(brought), "it is under way")
        made.cancel()
        worker.join(HANG_SECONDS)
        assert set(brought.values()) == {Ending()}
        written = [number for number, path in enumerate(paths) if path.exists()]
        assert sorted(brought) == written
        assert not list(tmp_path.rglob("*.tmp"))


def let_go(made: Helpers) -> None:
    for pid in made.left_behind:
        os.kill(pid, 9)
    wait_until(lambda: not made.left_behind, "the helpers are let go")


def test_nothing_more_is_tried_where_processes_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would only be one more that waits in the kernel. It is tried again once they are let go."""
    monkeypatch.setattr("rotator.adapters.sinks.helpers.DEATH_PATIENCE", timedelta(0))
    monkeypatch.setattr("subprocess.Popen.kill", lambda _: None)
    with helpers(module=SILENT) as made:
        for number in range(LEFT_BEHIND_AT_MOST):
            assert sorted(hang(made, request("/a", "/b"), FailureDomain(f"a sink that hung {number}"))) == [0, 1]
        brought = ask(made, request("/a", "/b"))
        assert brought[0].hung
        assert brought[0].problem.startswith("the file system at /mnt/dead hangs")
        let_go(made)
        assert hang(made, request("/a", "/b"))[0] == Ending()
        let_go(made)
