"""Installs a clone with the lowest versions that ``pyproject.toml`` allows, and sees that the program works with them.

A first pass with the example config, and what ``check``, ``status`` and ``verify`` say of it: with that each dependency
has done its part, the driver of PostgreSQL excepted, which is only loaded.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

_FLOOR = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[[a-z]+\])?>=(?P<version>[0-9][0-9.]*)")


def floors(pyproject: Path) -> list[str]:
    """Return the lowest version of each dependency that a user installs, as constraints of pip."""
    project = tomllib.loads(pyproject.read_text())["project"]
    found = []
    for text in [*project["dependencies"], *project["optional-dependencies"]["postgres"]]:
        floor = _FLOOR.match(text)
        if floor is None:
            raise SystemExit(f"{text!r} in {pyproject} says no lowest version: write NAME>=VERSION")
        found.append(f"{floor['name']}=={floor['version']}")
        if floor["extras"]:
            found += [f"{floor['name']}-{extra}=={floor['version']}" for extra in floor["extras"][1:-1].split(",")]
    return found


def main() -> int:
    """Return the exit code."""
    clone = Path(sys.argv[1]).absolute()
    place = clone / "lowest"
    place.mkdir()
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join(floors(clone / "pyproject.toml")) + "\n")
    print(constraints.read_text())

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    run(sys.executable, "-m", "venv", "venv")
    run("venv/bin/pip", "install", "--quiet", "--constraint", constraints, f"{clone}[postgres]")
    (place / "config.yaml").write_text((clone / "config.example.yaml").read_text())
    rotator = ("venv/bin/rotator", "--config", "config.yaml")
    run(*rotator, "run", "--once")
    run(*rotator, "check")
    print(run(*rotator, "status").partition("\n")[0])
    print(run(*rotator, "verify", "--file", "delivered/acme/token").partition("\n")[0])
    run("venv/bin/python", "-c", "import psycopg")
    print("the program works with the lowest versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
