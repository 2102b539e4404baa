"""The tests do not depend on how they were begun."""

import os
import signal
import subprocess
import sys

from tests.forking import ROOT

SHOWN = """
import os, signal
from tests.surroundings import leave_them
leave_them()
ignored = [each.name for each in signal.Signals if signal.getsignal(each) is signal.SIG_IGN]
print(ignored, signal.pthread_sigmask(signal.SIG_BLOCK, ()), oct(os.umask(0)), os.environ.get("ROTATOR_KEK"))
"""


def test_ignored_and_blocked_signals_a_mask_and_the_environment_are_left_behind() -> None:
    """As of a shell that began the tests in the background with `nohup`."""

    def as_nohup() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        os.umask(0o077)

    shown = subprocess.run(
        [sys.executable, "-c", SHOWN],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"ROTATOR_KEK": "of somebody"},
        preexec_fn=as_nohup,
    ).stdout
    assert shown == "['SIGPIPE', 'SIGXFSZ'] set() 0o22 None\n"
