"""A Debian tree to boot in a container, made once and kept outside the checkout.

Run as a script it makes the tree unless it is there, and prints where it is: ``python3 tests/e2e/debian.py``. Imports
only the standard library. Needs root and debootstrap.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SUITE: Final = "bookworm"
PACKAGES: Final = ("dbus", "python3", "python3-venv", "systemd-sysv")
"""What docs/systemd.md says."""


def cache_directory() -> Path:
    """Return where trees are kept: beside other programs' caches."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "rotator-tests"


def debian_tree() -> Path:
    """Return the tree, made now if need be; whoever comes at the same time waits."""
    tree = cache_directory() / "-".join((SUITE, *PACKAGES))
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            # Whole or not at all: what was begun and interrupted is under another name, and is made anew.
            begun = Path(tempfile.mkdtemp(dir=tree.parent, prefix="begun-"))
            try:
                make(begun)
                begun.rename(tree)
            except BaseException:
                shutil.rmtree(begun, ignore_errors=True)
                raise
    return tree


def make(tree: Path) -> None:
    """Let debootstrap make the tree, without the packages that it had to fetch."""
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(tree), *mirror()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
    subprocess.run(["chroot", tree, "apt-get", "clean"], check=True, timeout=60)
    tree.chmod(0o755)


def mirror() -> list[str]:
    """Return the mirror that this machine takes the suite from; nothing where it takes it from none."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Release: {SUITE}"]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False).stdout.split()
    return told[:1]


if __name__ == "__main__":
    print(debian_tree())
