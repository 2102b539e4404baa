"""Whoever can write the database but has no KEK: each column of each table is edited, and none of it is obeyed.

The tables and columns are those of the schema, so that a new one joins by itself. Each edit is made on a running
engine and on a stopped one; rows are taken away, too. After a heartbeat, or a start, it is harmless, or named in
``status``: the keys that verifiers need are published, those that were revoked or retired are not, the same key signs,
nothing was revoked, no token of another workspace was delivered, and nothing that was sealed can be read.
"""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from copy import copy
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import sqlalchemy as sa

from rotator.adapters.store import schema
from rotator.core.events import EventName
from rotator.core.integrity import COVERED
from rotator.core.model import Phase
from rotator.core.policy import Policy
from rotator.engine.tick import HEARTBEAT
from rotator.report import status
from rotator.report.records import Report
from tests.engine.site import DAY, HOUR, MINUTE, FakeClock, Site, keyset, policy_of, workspace

LARGEST = 2**63 - 1
NUMBERS = (0, 1, -LARGEST, LARGEST)
OF_OTHERS = ("requests",)
"""What people asked for is authenticated where it is accepted, and has tests of its own."""
SAYS_WHAT_IT_IS = ("installation", "audit_head")
"""Without its one row no database is worked on: `test_turned_back.py`."""


def values_for(column: sa.Column[Any], found: list[Any]) -> Iterator[Any]:
    """Yield values that are not there: nonsense, and what stands in other rows."""
    yield from dict.fromkeys(value for value in found if value is not None)
    if isinstance(column.type, sa.Text):
        yield from ("", "XX", "notjson")
    elif isinstance(column.type, sa.LargeBinary):
        yield from (b"", b"other")
    else:
        yield from NUMBERS
        yield from (value + step for value in found[:1] if value for step in (-60_000_000, 3_600_000_000))
    if column.nullable:
        yield None


TABLES = sorted(set(schema.metadata.tables) - set(OF_OTHERS))
MUST_BE_NAMED = {name: frozenset({*covered.columns, "mac", "kek_id"}) for name, covered in COVERED.items()} | {
    "tokens": frozenset(
        {"jti", "workspace", "keyset", "kid", "sequence", "issued_at", "expires_at", "rotate_at", "mac"}
    )
}


class Vandal:
    """Somebody with a connection to the database and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(sql, values).fetchall()

    def edit(self, table: str, column: str, rowid: int, value: Any) -> bool:
        """Change one value; False where the database itself does not let it in."""
        try:
            self.run(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", value, rowid)  # noqa: S608 - names of ours
        except sqlite3.IntegrityError:
            return False
        return True

    def undo(self, table: str, column: str, rowid: int, value: Any) -> None:
        """Put a value back; where the row was made anew meanwhile, that one goes."""
        if self.edit(table, column, rowid, value):
            return
        keys = [key.name for key in schema.metadata.tables[table].primary_key if key.name != column]
        same = "".join(f" AND {key} = (SELECT {key} FROM {table} WHERE rowid = {rowid})" for key in keys)  # noqa: S608
        self.run(f"DELETE FROM {table} WHERE {column} = ? AND rowid <> {rowid}{same}", value)  # noqa: S608
        assert self.edit(table, column, rowid, value)

    def column(self, table: str, column: str) -> list[tuple[int, Any]]:
        """Return each row's id and value."""
        found = self.run(f"SELECT rowid, {column} FROM {table} ORDER BY rowid")  # noqa: S608 - names of ours
        return [(rowid, value) for rowid, value in found]


def filled(root: Path) -> Site:
    """Make an installation with something in every table, and keys in every phase, that does nothing for half a day."""
    site = Site(root)
    site.main.start(
        policy_of(
            [keyset(security_period=8 * DAY), keyset("other", security_period=8 * DAY)],
            [workspace(name, site.sink(name), security_period=5 * DAY) for name in ("acme", "umbrella")]
            + [workspace("globex", site.sink("globex"), on="other", security_period=5 * DAY)],
        )
    )
    site.advance(13 * DAY)
    kid = site.query("SELECT kid FROM signing_keys WHERE keyset = 'other' AND phase = 'active'")[0][0]
    jti = site.query("SELECT jti FROM tokens WHERE workspace = 'umbrella' AND phase = 'active'")[0][0]
    site.revoked |= {kid, jti}
    assert site.ask("key.revoke", kid=kid, choice="now").succeeded
    assert site.ask("token.revoke", jti=jti).succeeded
    assert site.ask("token.replace", workspace="acme", overlap="36000").succeeded
    site.advance(60 * HOUR)  # until spares are ready
    assert site.ask("token.replace", workspace="acme", overlap="36000").succeeded
    # It waits for a second spare, which is there when a rotation is near: that differs from key to key.
    while not site.query("SELECT 1 FROM wishes"):
        assert site.ask("keyset.rotate", keyset="default").succeeded
    site.advance(MINUTE)
    empty = [table for table in TABLES if not site.query(f"SELECT 1 FROM {table}")]  # noqa: S608 - names of ours
    assert empty == []
    return site


@dataclass(frozen=True)
class Template:
    """An installation at rest, to be copied."""

    root: Path
    clock: FakeClock
    policy: Policy
    revoked: frozenset[str]

    def copy(self, root: Path) -> Site:
        shutil.copytree(self.root, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("kek"))
        site = Site(root)
        shutil.copy(self.root / "kek", root / "kek")
        site.clock, site.revoked = copy(self.clock), set(self.revoked)
        site.policy = moved(self.policy, site)
        return site


def moved(policy: Policy, site: Site) -> Policy:
    """Return ``policy`` with its sinks in the directory of ``site``."""
    return replace(
        policy,
        workspaces={name: replace(each, sinks=(site.sink(name),)) for name, each in policy.workspaces.items()},
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    site = filled(tmp_path_factory.mktemp("template"))
    site.main.stop()
    return Template(site.root, site.clock, site.policy, frozenset(site.revoked))


class Watch:
    """One installation before and after each edit."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.vandal = Vandal(site.database)
        self.sets = self._sets()
        self.signing = self._signing()
        self.revoked = self._revoked()
        self.needed = self._needed()
        self.restores = self._restores()
        self.counted: Counter[str] = Counter()
        self.obeyed: list[str] = []

    def _sets(self) -> dict[str, list[str]]:
        return {name: self.site.main.kids(name) for name in ("default", "other")}

    def _signing(self) -> dict[str, str]:
        return {name: signing.kid for name, signing in self.site.main.run.signing.items()}

    def _revoked(self) -> set[str]:
        run = self.site.main.run
        return {*run.revoked_kids, *run.revoked_jtis}

    def _needed(self) -> set[str]:
        """Return the kids of the keys that sign, or have signed what may still live."""
        return {key.kid for key in self.site.signing_keys(Phase.ACTIVE, Phase.GRACE)}

    def _restores(self) -> int:
        return len(self.site.events(EventName.STATE_RESTORED))

    def _is_of_an_older_database(self) -> bool:
        """Tell whether the sets are as after the return of a database that knew less: fresh spares, no other change.

        Whoever writes a smaller number there gets just what a whole older database would have brought.
        """
        if self._restores() == self.restores:
            return False
        self.restores = self._restores()
        before, shown = ({kid for kids in sets.values() for kid in kids} for sets in (self.sets, self._sets()))
        made = {key.kid for key in self.site.signing_keys(Phase.PENDING) if key.authentic}
        return self.needed <= shown and shown - before <= made and self.revoked.isdisjoint(shown)

    def beat(self, mode: str) -> None:
        """Let the daemon look: at its next heartbeat, or when it is started."""
        self.site.clock.elapse(HEARTBEAT + timedelta(seconds=1))
        if mode == "stopped":
            self.site.main.start(self.site.policy)
        else:
            self.site.main.settle()

    def report(self) -> Report:
        run = self.site.main.run
        with run.around.store.read() as snapshot:
            return status(snapshot, self.site.policy, self.site.clock.wall, run.faults)

    def forget(self) -> None:
        """Forget what was named, as an hour later."""
        run = self.site.main.run
        for subject in [subject for subject in run.faults if subject.startswith("row:")]:
            del run.faults[subject]
        run.tampered.clear()

    def judge(self, what: str, *, of_keys: bool = False) -> str:
        """Return whether the last edit was harmless or named; note where it was obeyed.

        ``of_keys``: it was the row of a key, and where that was the one that signs, a ready spare may take its place.
        """
        site = self.site
        report = self.report()
        self.obeyed += [f"{what}: {refused}" for refused in site.refused]
        site.refused.clear()
        if self._sets() != self.sets:
            if not self._is_of_an_older_database():
                self.obeyed.append(f"{what}: {self._sets()} is published in place of {self.sets}")
            self.sets = self._sets()
        signing = self._signing()
        others = {name for name, kid in signing.items() if kid != self.signing.get(name, kid)}  # that none does is loss
        if others:
            if not of_keys:
                self.obeyed.append(f"{what}: {signing} signs in place of {self.signing}")
            self.signing = signing
        if self._revoked() != self.revoked:
            self.obeyed.append(f"{what}: {self._revoked() ^ self.revoked} is revoked, or is so no more")
            self.revoked = self._revoked()
        for name in site.policy.workspaces:
            claims = jwt.decode(site.held(name), options={"verify_signature": False})
            if claims["workspace"] != name:
                self.obeyed.append(f"{what}: the token of {claims['workspace']} is with {name}")
        if "eyJ" in str(site.log.events):
            self.obeyed.append(f"{what}: a token is in the log")
        site.log.events.clear()
        # A row of a keyset that is made anew, or is an older one, may cost a spare: that is said for days, of no edit.
        spares = what.startswith(("keysets", "after"))
        named = [each for each in report.problems if not (spares and "no ready spare" in each.text)]
        return "named" if named else "harmless"


def edits(watch: Watch, table: str, most: int) -> Iterator[tuple[str, int, Any, Any]]:
    """Yield column, row, what stands there, and what is put there instead."""
    for column in schema.metadata.tables[table].columns:
        for number in range(most):
            rows = watch.vandal.column(table, column.name)  # each time: a row that was made anew is another one
            found = [value for _, value in rows]
            others = [value for value in values_for(column, found) if value != found[0]] if found else []
            if number < len(others):
                yield column.name, *rows[0], others[number]


@pytest.mark.parametrize("mode", ["running", "stopped"])
@pytest.mark.parametrize("table", TABLES)
def test_no_edit_is_obeyed(template: Template, tmp_path: Path, table: str, mode: str) -> None:
    """Each is harmless or named; what a MAC covers is named, whatever stands there then."""
    site = template.copy(tmp_path)
    site.main.start(site.policy)
    site.advance(2 * MINUTE)
    watch = Watch(site)
    assert watch.judge("before") == "harmless", [problem.text for problem in watch.report().problems]
    for column, rowid, before, value in edits(watch, table, most=3 if mode == "running" else 1):
        what = f"{table}.{column} of row {rowid}: {value!r} for {before!r}, {mode}"
        if mode == "stopped":
            site.main.stop()
        if not watch.vandal.edit(table, column, rowid, value):
            watch.counted["refused by the database"] += 1
            if mode == "stopped":
                site.main.start(site.policy)
            continue
        watch.beat(mode)
        verdict = watch.judge(what, of_keys=table == "signing_keys")
        watch.counted[verdict] += 1
        if verdict == "harmless" and column in MUST_BE_NAMED.get(table, frozenset()):
            watch.obeyed.append(f"{what}: nobody says so")
        if (rowid, value) in watch.vandal.column(table, column):
            watch.vandal.undo(table, column, rowid, before)
        watch.beat("running")
        watch.forget()
    watch.beat("running")
    if watch.judge("after all of it") != "harmless":
        watch.obeyed.append(f"it is not over: {[problem.text for problem in watch.report().problems]}")
    print(f"\n{table}, {mode}: {dict(watch.counted)}")
    assert watch.obeyed == []
    site.main.stop()


def first_row(watch: Watch, table: str) -> tuple[Any, ...]:
    ((*row,),) = watch.vandal.run(f"SELECT rowid, * FROM {table} ORDER BY rowid LIMIT 1")  # noqa: S608 - names of ours
    return tuple(row)


@pytest.mark.parametrize("mode", ["running", "stopped"])
@pytest.mark.parametrize("table", [table for table in TABLES if table not in SAYS_WHAT_IT_IS])
def test_no_loss_is_obeyed(template: Template, tmp_path: Path, table: str, mode: str) -> None:
    """A row that is taken away is named or made anew; with it goes what only it held, and nothing else."""
    site = template.copy(tmp_path)
    site.main.start(site.policy)
    site.advance(2 * MINUTE)
    watch = Watch(site)
    rowid, *row = first_row(watch, table)
    what = f"{table} without {row[:2]}, {mode}"
    if mode == "stopped":
        site.main.stop()
    watch.vandal.run(f"DELETE FROM {table} WHERE rowid = ?", rowid)  # noqa: S608 - names of ours
    watch.beat(mode)
    watch.counted[watch.judge(what, of_keys=table == "signing_keys")] += 1
    marks = ", ".join("?" * len(row))
    watch.vandal.run(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", *row)  # noqa: S608 - names of ours
    watch.beat("running")
    watch.forget()
    watch.beat("running")
    if watch.judge("after all of it") != "harmless":
        watch.obeyed.append(f"it is not over: {[problem.text for problem in watch.report().problems]}")
    print(f"\n{what}: {dict(watch.counted)}")
    assert watch.obeyed == []
    site.main.stop()
