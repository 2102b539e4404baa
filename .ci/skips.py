"""Reads pytest's JUnit reports: fails on a test that was skipped and is not allowed to be, or counts outcomes.

skips.py JUNIT ALLOWED
skips.py --count JUNIT...
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree


def main() -> int:
    """Return the exit code."""
    if sys.argv[1] == "--count":
        return count([Path(each) for each in sys.argv[2:]])
    return compare(Path(sys.argv[1]), Path(sys.argv[2]))


def compare(report: Path, allowed_list: Path) -> int:
    """Hold what was skipped against what may be."""
    allowed = {line for line in allowed_list.read_text().splitlines() if line and not line.startswith("#")}
    skipped = {}
    for case in ElementTree.parse(report).iter("testcase"):
        found = case.find("skipped")
        if found is not None:
            skipped[f"{case.get('classname')}::{case.get('name')}"] = found.get("message", "")
    for name in sorted(skipped.keys() - allowed):
        print(f"skipped: {name}: {skipped[name]}")
    for name in sorted(allowed - skipped.keys()):
        print(f"{allowed_list} names a test that was not skipped: {name}")
    print(f"{len(skipped)} skipped, {len(skipped.keys() & allowed)} of them allowed")
    return 0 if skipped.keys() == allowed else 1


def count(reports: Sequence[Path]) -> int:
    """Print what came out of all of them, as pytest does for one."""
    suites = [next(ElementTree.parse(report).iter("testsuite")) for report in reports]
    tests, skipped, failures, errors = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped", "failures", "errors")
    )
    parts = [f"{tests - skipped - failures - errors} passed"]
    parts += [
        f"{number} {name}"
        for number, name in ((failures, "failed"), (errors, "errors"), (skipped, "skipped"))
        if number
    ]
    print(f"{', '.join(parts)} in {sum(float(suite.get('time', 0)) for suite in suites):.2f}s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
