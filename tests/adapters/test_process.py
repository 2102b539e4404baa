"""No dump is made of a process that holds a key-encryption key."""

import subprocess
import sys
from pathlib import Path

from tests.patience import HANG_SECONDS

SCRIPT = """
import ctypes, resource, sys
from pathlib import Path
from rotator.adapters.kek import make_kek_file
from rotator.config.settings import KekKind, KekSource
from rotator.wiring import read_kek

resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
path = Path(sys.argv[1])
make_kek_file(path)
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
read_kek(KekSource(KekKind.CONFIG, file=path, value=None))
print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_whoever_reads_the_kek_leaves_no_dump(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "kek")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert (done.stdout.split(), done.stderr) == (["1", "0", "0", "0"], "")
