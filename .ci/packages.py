"""Checks what is in the wheel and the sdist: ``packages.py DIST CHECKOUT``."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

SHARED = (
    "config.example.yaml",
    "docs/events.md",
    "docs/systemd.md",
    *(f"systemd/{name}" for name in ("rotator.service", "rotator.sysusers.conf", "rotator.tmpfiles.conf")),
    *(f"systemd/{name}" for name in ("network-sinks.conf", "control-groups.conf")),
)
SDIST = ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "tests/test_packaging.py", *SHARED)
NEVER = (".pyc", ".db", ".db-wal", ".log", "/kek", "/token")


def main() -> int:
    """Return the exit code."""
    dist, checkout = Path(sys.argv[1]), Path(sys.argv[2])
    tracked = subprocess.run(
        ["git", "-C", checkout, "ls-files"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    package = {path for path in tracked if path.startswith("rotator/")}
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    wrong_name = [each.name for each in (wheel, sdist) if not each.name.startswith("rotatord-")]
    data = next(name.partition("/")[0] for name in in_wheel if ".data/" in name)
    missing = [f"wheel: {path}" for path in sorted({*package, "rotator/py.typed"} - in_wheel)]
    missing += [f"wheel: {path}" for path in SHARED if f"{data}/data/share/rotator/{path}" not in in_wheel]
    missing += [f"sdist: {path}" for path in sorted({*package, *SDIST} - in_sdist)]
    wrong = [f"{name}: the distribution is called rotatord" for name in wrong_name]
    wrong += [f"{name}: does not belong there" for name in sorted(in_wheel | in_sdist) if name.endswith(NEVER)]
    wrong += [f"wheel: {name} does not belong there" for name in sorted(in_wheel) if name.startswith("tests/")]
    if not any(path.startswith("rotator/adapters/store/migrations/versions/") for path in in_wheel):
        missing.append("wheel: the migrations")
    for problem in [*(f"missing in the {each}" for each in missing), *wrong]:
        print(problem)
    print(f"{wheel.name}: {len(in_wheel)} files; {sdist.name}: {len(in_sdist)} entries")
    return 1 if missing or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
