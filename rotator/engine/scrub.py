"""Finds what somebody else did to the database, names it, and makes anew what follows from what is authentic.

At each heartbeat all of the small tables, and the next page of the large ones, so that a tick costs the same however
many workspaces there are. What is found stays a fault for :data:`NAMED_FOR` at least, so that nobody misses what was
made good within the same moment.

Which token of a workspace is the current one, and what each sink is to hold, follows from the tokens themselves: a
workspace whose row says otherwise gets a fresh token, and deliveries are planned anew.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from rotator.core.actions import Reason
from rotator.core.audit import Mark, verify_chain
from rotator.core.model import Jti, KeysetName, Phase, SinkId, Token, WorkspaceId
from rotator.core.policy import Policy
from rotator.core.schedule import token_rotation_due
from rotator.core.sinks import sink_id
from rotator.core.stored_policy import policy_to_json
from rotator.engine.belief import held_against_witness
from rotator.engine.deliver import lease, open_stored
from rotator.engine.rows import identity_of
from rotator.engine.run import Run
from rotator.engine.sync import NEVER
from rotator.errors import SealError, StoreError
from rotator.ports import (
    DeliveryRow,
    KeysetRow,
    Reading,
    ReplicaRow,
    RowProblem,
    Snapshot,
    TokenRow,
    WorkspaceSeen,
)

AT_A_TIME: Final = 200
"""Tokens, and events, that are looked at in one heartbeat."""

WORKSPACES_AT_A_TIME: Final = 50
"""Each with its tokens and deliveries."""

OPENED_AT_MOST: Final = 10_000
"""Texts of tokens that are remembered to open, so that those of a small installation are opened once."""

NAMED_FOR: Final = timedelta(hours=1)

MOST_GENERATIONS: Final = 10_000
"""A keyset publishes no more sets than that between two writings of the witness."""

LONGEST_PAUSE: Final = timedelta(minutes=30)
"""Nothing waits longer than that for the next try, but for workspaces that the config has no more."""


FIRST_TOKEN: Final = Jti("")
FIRST_WORKSPACE: Final = WorkspaceId("")


@dataclass(slots=True)
class Scrub:
    """How far each large table was looked through; lost at a stop, and begun anew."""

    token: Jti = FIRST_TOKEN
    workspace: WorkspaceId = FIRST_WORKSPACE
    event: int | None = None
    wanted: tuple[WorkspaceId, ...] = ()
    """The workspaces of the config, in order."""
    wanted_by: Policy | None = None
    """The config that they were taken from."""
    opened: set[int] = field(default_factory=set)
    """Hashes of sealed texts that were opened, each with what its row says."""

    def wanted_in(self, policy: Policy, after: WorkspaceId, last: WorkspaceId) -> Sequence[WorkspaceId]:
        """Return the workspaces of ``policy`` that come after ``after``, up to ``last`` or to their end."""
        if self.wanted_by is not policy:
            self.wanted, self.wanted_by = tuple(sorted(policy.workspaces)), policy
        end = bisect_right(self.wanted, last) if last else len(self.wanted)
        return self.wanted[bisect_right(self.wanted, after) : end]


class _Page:
    """The next workspaces, with all that is stored about them."""

    def __init__(self, snapshot: Snapshot, after: WorkspaceId) -> None:
        self.seen: Final = snapshot.workspaces_after(after, WORKSPACES_AT_A_TIME)
        names = [each.state.id for each in self.seen]
        self.tokens: Final[dict[WorkspaceId, list[Token]]] = {name: [] for name in names}
        for token in snapshot.tokens_of(names):
            self.tokens[token.workspace].append(token)
        self.current: Final = snapshot.current_tokens(names)
        self.deliveries: Final[dict[WorkspaceId, dict[SinkId, DeliveryRow]]] = {name: {} for name in names}
        for row in snapshot.deliveries_of(names):
            self.deliveries[row.workspace][row.sink] = row
        self.last_event: Final = snapshot.audit_head().seq

    @property
    def last(self) -> WorkspaceId:
        """The workspace after which the next page begins."""
        return self.seen[-1].state.id if len(self.seen) == WORKSPACES_AT_A_TIME else FIRST_WORKSPACE


def tampered(run: Run, table: str, key: str, problem: str, reading: Reading) -> None:
    """Name a row that somebody else changed."""
    subject = f"row:{table} {key}".rstrip()
    run.fault(subject, problem, "row.changed", table=table, row=key)
    run.tampered[subject] = reading.now


def name_changed_rows(run: Run, reading: Reading) -> None:
    """Name each row of the small tables that somebody else changed, before anything is written over it."""
    with run.around.store.read() as snapshot:
        found = snapshot.changed_rows()
        installation = snapshot.installation()
    for row in found:
        tampered(run, row.table, row.key, row.problem, reading)
    if run.installation and installation != run.installation:
        tampered(run, "installation", "", f"it says {installation}, and this one is {run.installation}", reading)


def look_through(run: Run, scrub: Scrub, reading: Reading, *, starting: bool = False) -> None:
    """Look at the next rows, name what was changed, and make good what can be.

    ``starting``: the config is applied next, and resumes what waits for its return.
    """
    with run.around.store.read() as snapshot:
        found = [*_changed_tokens(snapshot, scrub, reading)]
        found += _turned_back_keys(run, snapshot)
        found += _broken_chain(snapshot, scrub)
        page = _Page(snapshot, scrub.workspace)
        missing = [] if starting else _missing(run, scrub, page)
        scrub.workspace = page.last
        wrong = {
            seen.state.id: problem
            for seen in page.seen
            if (
                problem := _problem(run, page, seen, reading, starting=starting)
                or _wrong_text(run, snapshot, scrub, page, seen)
            )
        }
        lost = [row for seen in page.seen for row in _lost_deliveries(run, page, seen, reading)]
    for row in found:
        tampered(run, row.table, row.key, row.problem, reading)
    for workspace, problem in wrong.items():
        tampered(run, "workspaces", workspace, f"{problem}; it gets a fresh token", reading)
    for workspace in missing[:WORKSPACES_AT_A_TIME]:
        tampered(run, "workspaces", workspace, "it is gone; the workspace gets a fresh token", reading)
    for delivery in lost:
        tampered(run, "deliveries", f"{delivery.workspace} {delivery.sink}", "it is not what its tokens say", reading)
    if wrong or lost:
        with run.around.store.begin() as transaction:
            for workspace in wrong:
                transaction.renew_workspace(workspace, reading.now)
            transaction.drop_deliveries([(row.workspace, row.sink) for row in lost])  # whatever number it waits for
            transaction.want_deliveries(lost)
    run.tampered_workspaces |= bool(missing) or any(not seen.authentic for seen in page.seen)
    for subject, at in list(run.tampered.items()):
        if not timedelta(0) <= reading.now - at < NAMED_FOR:
            del run.tampered[subject]
            run.healed(subject)


def _changed_tokens(snapshot: Snapshot, scrub: Scrub, reading: Reading) -> tuple[RowProblem, ...]:
    problems, last = snapshot.changed_tokens(scrub.token, AT_A_TIME, reading.now)
    scrub.token = last or Jti("")
    return problems


def _turned_back_keys(run: Run, snapshot: Snapshot) -> Iterator[RowProblem]:
    """Yield the rows of keys that are older ones than the witness has seen, each with a MAC that is valid."""
    for stored in snapshot.all_keys():
        key = stored.key
        if key.authentic and not held_against_witness(run, key.keyset, key).authentic:
            yield RowProblem("signing_keys", key.kid, "it is an older row of this key, put back; nobody goes by it")


# ---------------------------------------------------------------------------------------------------------- workspaces


def _missing(run: Run, scrub: Scrub, page: _Page) -> Sequence[WorkspaceId]:
    """Return the workspaces that the config has, and that have no row where the page has its place for them."""
    there = {seen.state.id for seen in page.seen}
    return [name for name in scrub.wanted_in(run.policy, scrub.workspace, page.last) if name not in there]


def _problem(run: Run, page: _Page, seen: WorkspaceSeen, reading: Reading, *, starting: bool) -> str:
    """Return what is wrong with a workspace's row, as its tokens and the config show; empty when nothing is."""
    state = seen.state
    if not seen.authentic:
        return "it was not written by this installation, or was changed since"
    if state.removed_at is not None:
        return ""
    latest = max(page.tokens[state.id], key=lambda token: token.sequence, default=None)
    waits_for_config = starting and seen.next_at == NEVER
    puts_off = seen.next_at > max(state.due_at, reading.now + LONGEST_PAUSE) and not waits_for_config
    if puts_off and state.id in run.policy.workspaces:
        return "it puts off the next token for longer than anything does"
    if latest is None:
        return "" if state.current is None else "its current token is not there"
    if latest.jti != state.current or state.sequence < latest.sequence:
        return "its current token is not the last that was issued to it"
    if state.current_kid != latest.kid or state.current_issued_at != latest.issued_at:
        return "it does not say of its current token what that is"
    if state.current_expires_at is None or state.current_expires_at > latest.expires_at:
        return "it does not say of its current token when that ends"
    if state.sequence > page.last_event:
        return "it counts more tokens than were ever issued"
    return _wrong_phase(latest) or _wrong_due(run, seen, latest)


def _wrong_phase(latest: Token) -> str:
    if latest.phase is Phase.GRACE:
        return "its current token says that another one has taken its place"
    return ""


def _wrong_due(run: Run, seen: WorkspaceSeen, latest: Token) -> str:
    policy = run.policy.workspaces.get(seen.state.id)
    if policy is None or seen.state.due_at <= latest.rotate_at:
        return ""
    if seen.state.due_reason == Reason.RESTORED:
        return ""  # its token is an old database's, and was long due; all are issued anew, spread over some time
    by_policy = token_rotation_due(policy, latest.issued_at, run.around.calendar)
    return "" if seen.state.due_at <= by_policy else "its next token is due later than by its security period"


def _wrong_text(run: Run, snapshot: Snapshot, scrub: Scrub, page: _Page, seen: WorkspaceSeen) -> str:
    """Return why the current token cannot be handed to anybody; empty when it can, or is over anyway."""
    stored = page.current.get(seen.state.id) if seen.authentic and seen.state.removed_at is None else None
    if stored is None or stored.token.phase is not Phase.ACTIVE:
        return ""
    if stored.sealed is None:
        return "the text of its current token is gone"
    mark = hash((identity_of(stored.token), stored.kek_id, stored.sealed))
    if mark in scrub.opened:
        return ""
    try:
        open_stored(run, snapshot, _wanted(seen, stored, SinkId("")), stored)
    except SealError as error:
        return str(error)
    if len(scrub.opened) >= OPENED_AT_MOST:
        scrub.opened.clear()
    scrub.opened.add(mark)
    return ""


def _wanted(seen: WorkspaceSeen, stored: TokenRow, sink: SinkId) -> DeliveryRow:
    state, token = seen.state, stored.token
    return DeliveryRow(
        workspace=state.id,
        sink=sink,
        jti=token.jti,
        sequence=token.sequence,
        wanted_at=token.issued_at,
        deadline=token.expires_at,
    )


def _lost_deliveries(run: Run, page: _Page, seen: WorkspaceSeen, reading: Reading) -> Iterator[DeliveryRow]:
    """Yield, as they should be, the deliveries of a workspace that do not follow from its current token."""
    state = seen.state
    if not seen.authentic or state.removed_at is not None or state.current is None:
        return
    policy = run.policy.workspaces.get(state.id)
    if policy is None or state.sinks_fingerprint != policy.sinks_fingerprint:
        return
    stored = page.current.get(state.id)
    if stored is None or stored.token.phase is not Phase.ACTIVE:
        return
    ends = {token.sequence: token.expires_at for token in page.tokens[state.id]}
    rows = page.deliveries[state.id]
    for sink in policy.sinks:
        row = rows.get(sink_id(sink))
        if row is None:
            if state.due_reason != Reason.RESTORED:  # then all are planned afresh with its next token
                yield replace(_wanted(seen, stored, sink_id(sink)), due_at=reading.now)
        elif _is_lost(row, stored.token, reading.now + lease(sink) + LONGEST_PAUSE, ends, reading):
            held = row.delivered_sequence if row.delivered_sequence < stored.token.sequence else 0
            yield replace(_wanted(seen, stored, row.sink), delivered_sequence=held, due_at=reading.now)


def _is_lost(row: DeliveryRow, token: Token, latest: datetime, ends: Mapping[int, datetime], reading: Reading) -> bool:
    """Tell whether a delivery does not follow from the token that its sink is to hold."""
    owed = row.delivered_sequence < token.sequence
    return (
        (row.jti, row.sequence) != (token.jti, token.sequence)
        or (row.due_at is None) is owed
        or row.delivered_sequence > token.sequence
        or (row.due_at is not None and row.due_at > latest)
        or (owed and row.wanted_at > reading.now)
        or (owed and row.deadline > ends.get(row.delivered_sequence, token.expires_at))
    )


# -------------------------------------------------------------------------------------------------------- audit chain


def _broken_chain(snapshot: Snapshot, scrub: Scrub) -> Iterator[RowProblem]:
    """Yield the first event of the next page that is not as it was written, and a head that is none."""
    head = snapshot.audit_head()
    if head.seq != head.anchor_seq and snapshot.audit_hash(head.seq) != head.hash:
        yield RowProblem("audit_head", "", "the chain does not end where it says")
    begin = Mark(head.anchor_seq, head.anchor_hash)
    if scrub.event is not None and scrub.event > head.anchor_seq:
        link = snapshot.audit_hash(scrub.event)
        begin = begin if link is None else Mark(scrub.event, link)
    try:
        page = list(snapshot.audit(after=begin.seq, limit=AT_A_TIME))
        broken = verify_chain(page, begin)
    except StoreError as error:
        yield RowProblem("audit", "", str(error))
        return
    scrub.event = page[-1].seq if len(page) == AT_A_TIME else None
    if broken is not None:
        yield RowProblem("audit", str(broken.seq), broken.problem)


# -------------------------------------------------------------------------------------------------- keysets, replicas


def renew_replicas(run: Run, reading: Reading) -> None:
    """Make the row of a replica anew that is gone: it counts until somebody says that it is to be forgotten.

    Without it nobody would wait for its tree, which verifiers may be served from.
    """
    with run.around.store.read() as snapshot:
        gone = run.replicas - {row.replica for row in snapshot.replicas()} - snapshot.forgotten_replicas()
    for name in sorted(gone):
        tampered(run, "replicas", name, "it is gone; the replica counts as one of which no more is known", reading)
        with run.around.store.begin() as transaction:
            transaction.put_replica(ReplicaRow(replica=name, started_at=reading.now, seen_at=reading.now))


def renew_keysets(run: Run, reading: Reading) -> None:
    """Make the row of a keyset anew, from the config, its keys and the witness, where it is gone or was changed.

    Of one that has left the config nothing else says how it ends: it is named, and its set stays.
    """
    with run.around.store.read() as snapshot:
        rows = {row.name: row for row in snapshot.keysets()}
        sequences: dict[KeysetName, int] = {}
        for stored in snapshot.all_keys():
            if stored.key.authentic:
                sequences[stored.key.keyset] = max(stored.key.sequence, sequences.get(stored.key.keyset, 0))
    lost = [name for name in run.policy.keysets if name not in rows and name in run.witnessed]
    changed = [name for name, row in rows.items() if not row.authentic]
    for name, seen in run.witnessed.items():
        if name in rows and not 0 <= rows[name].generation - seen.generation <= MOST_GENERATIONS:
            tampered(run, "keysets", name, "its generation is not that of its last set; it goes on from that", reading)
            with run.around.store.begin() as transaction:
                transaction.put_keyset(replace(rows[name], generation=seen.generation, due_at=reading.now))
    for subject in [each for each in run.faults if each.startswith("keyset:")]:
        if subject.removeprefix("keyset:") not in {*rows, *run.policy.keysets}:
            run.healed(subject)
    for name in (*lost, *changed):
        problem = "it is gone" if name in lost else "it was not written by this installation, or was changed since"
        tampered(run, "keysets", name, problem, reading)
        policy = run.policy.keysets.get(name)
        if policy is None:
            continue
        witnessed = run.witnessed.get(name)
        numbers = [
            sequences.get(name, 0),
            *(() if witnessed is None else (key.sequence for key in witnessed.published)),
        ]
        known = rows.get(name)
        row = KeysetRow(
            name=name,
            generation=max(0 if known is None else known.generation, 0 if witnessed is None else witnessed.generation),
            set_sha256="" if known is None else known.set_sha256,
            schedule_fingerprint=policy.schedule_fingerprint,
            next_sequence=max(numbers) + 1,
            ever_active=True,
            due_at=reading.now,
            policy=policy_to_json(policy),
        )
        with run.around.store.begin() as transaction:
            transaction.put_keyset(row, anew=True)
