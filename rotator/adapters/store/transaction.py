"""Changes that become durable together or not at all."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import asked, chain, deliveries, integrity, issue, pruning, queries, revoke, rows, schema
from rotator.adapters.store.bulk import Statement, Value, upsert
from rotator.adapters.store.snapshot import SqlSnapshot
from rotator.adapters.store.times import span_to_us, to_us
from rotator.core.events import Event, encode_details
from rotator.core.model import (
    Jti,
    KeysetName,
    Kid,
    Origin,
    Overlap,
    Phase,
    ReplicaId,
    SigningKey,
    SinkId,
    Wish,
    WorkspaceId,
    WorkspaceState,
)
from rotator.core.timeguard import ClockMark
from rotator.errors import SealError, StoreError
from rotator.ports import (
    SEALED,
    AuditHead,
    DeliveryRow,
    IssuedToken,
    KekRow,
    KeyRow,
    KeysetRow,
    Pruned,
    ReplicaRow,
    RequestRow,
    RevokedTokens,
    Sighting,
)

LOCK_KEYSET: Final = queries.ONE_KEYSET.with_for_update()
LOCK_WORKSPACE: Final = queries.ONE_WORKSPACE.with_for_update()

DELETE_SIGHTING: Final = Statement("DELETE FROM sightings WHERE replica = ? AND kid = ?")
PUT_PUBLICATION: Final = Statement(
    upsert(schema.publications, ("replica", "keyset", "generation", "sha256", "published_at"))
)

RETIRE_TOKEN: Final = Statement(
    "UPDATE tokens SET phase = 'retired', retired_at = ?, sealed = NULL WHERE jti = ? AND phase IN ('active', 'grace')"
)


PUT_ASIDE: Final = sa.text(
    "UPDATE requests SET finished_at = :at, succeeded = 0, result = :said, "
    "arguments = CASE WHEN arguments LIKE :sealed THEN '' ELSE arguments END WHERE id = :number"
)


CHANGES_OF_KEY: Final = frozenset(
    {
        "phase",
        "proven_at",
        "activated_at",
        "rotate_at",
        "demoted_at",
        "grace_until",
        "last_exp",
        "retired_at",
        "revoked_at",
        "destroyed_at",
    }
)
"""Columns that :meth:`SqlTransaction.update_key` changes, beside the sealed half."""


def _key_values(key: SigningKey) -> dict[str, Value]:
    return {
        "kid": key.kid,
        "keyset": key.keyset,
        "sequence": key.sequence,
        "algorithm": key.algorithm,
        "origin": key.origin,
        "phase": key.phase,
        "public_jwk": key.public_jwk,
        "created_at": to_us(key.created_at),
        "proven_at": to_us(key.proven_at),
        "activated_at": to_us(key.activated_at),
        "rotate_at": to_us(key.rotate_at),
        "demoted_at": to_us(key.demoted_at),
        "grace_until": to_us(key.grace_until),
        "last_exp": to_us(key.last_exp),
        "retired_at": to_us(key.retired_at),
        "revoked_at": to_us(key.revoked_at),
        "destroyed_at": to_us(key.destroyed_at),
    }


def _private(row: KeyRow) -> dict[str, Value]:
    return {"sealed": row.sealed, "kek_id": row.kek_id}


class SqlTransaction(SqlSnapshot):
    """A :class:`~rotator.ports.Transaction` on one connection, whose transaction its maker began and ends."""

    # -------------------------------------------------------------------------------------------------------- itself

    def set_clock_mark(self, mark: ClockMark) -> None:
        """Remember ``mark``, whatever was remembered before."""
        values = {
            "single": 1,
            "high_water_at": to_us(mark.high_water_at),
            "boot_id": mark.boot_id,
            "offset_us": span_to_us(mark.offset),
        }
        integrity.CLOCK.put(self._connection, self._integrity, values, anew=True)

    def add_kek(self, row: KekRow) -> None:
        """Register a KEK. Raise :class:`StoreError` if one of its name is registered."""
        if any(known.kek_id == row.kek_id for known in self.keks()):
            raise StoreError(f"a KEK {row.kek_id} is registered already; give the new one another id")
        values = {"kek_id": row.kek_id, "check_value": row.check, "created_at": to_us(row.created_at)}
        mac = self._integrity.seal("keks", values, row.kek_id)
        self._connection.execute(sa.insert(schema.keks).values({**values, **mac}))

    # -------------------------------------------------------------------------------------------------- keysets, keys

    def lock_keyset(self, name: KeysetName) -> KeysetRow | None:
        """Return one keyset with its row locked until the end of the transaction."""
        row = self._first(LOCK_KEYSET, name=name)
        return None if row is None else rows.keyset(row, self._integrity)

    def put_keyset(self, row: KeysetRow, *, anew: bool = False) -> None:
        """Insert or replace a keyset.

        Where the stored row is not authentic only what decides nothing is stored, unless ``anew``: then ``row`` is made
        from what is known besides.
        """
        next_at = row.due_at if row.retry_at is None else max(row.due_at, row.retry_at)
        values: dict[str, Value] = {
            "name": row.name,
            "generation": row.generation,
            "schedule_fingerprint": row.schedule_fingerprint,
            "next_sequence": row.next_sequence,
            "ever_active": int(row.ever_active),
            "due_at": to_us(row.due_at),
            "next_at": to_us(next_at),
            "ended_at": to_us(row.ended_at),
            "failures": row.failures,
            "retry_at": to_us(row.retry_at),
            "fault": row.fault,
            "set_sha256": row.set_sha256,
            "policy": row.policy,
        }
        integrity.KEYSETS.put(self._connection, self._integrity, values, anew=anew)

    def insert_key(self, row: KeyRow) -> None:
        """Store a new key. Raise :class:`StoreError` if its kid was ever used."""
        used = self.key(row.key.kid)
        if used is not None:
            raise StoreError(
                f"kid {row.key.kid} was used before: it is {used.key.phase} in keyset {used.key.keyset}. A kid is "
                "never used twice; make a new key"
            )
        integrity.SIGNING_KEYS.put(self._connection, self._integrity, _key_values(row.key) | _private(row))

    def replace_unauthentic_key(self, row: KeyRow) -> None:
        """Store ``row`` in place of one of the same kid. Raise :class:`StoreError` unless that one is not authentic."""
        before = self._locked_key(row.key.kid)
        if before is None or self._integrity.holds("signing_keys", before):
            raise StoreError(f"the row of key {row.key.kid} is as it was written, or gone, and is not replaced")
        values = _key_values(row.key) | _private(row)
        integrity.SIGNING_KEYS.put(self._connection, self._integrity, values, anew=True)

    def update_key(self, key: SigningKey) -> None:
        """Store the phase and instants of ``key``; where ``has_private`` is false, erase its sealed private half.

        ``last_exp`` is never lowered. Raise :class:`StoreError` if there is no such key, and :class:`SealError` if its
        row is not authentic and says more than that it is revoked: revoked it can always be.
        """
        before = self._locked_key(key.kid)
        if before is None:
            raise StoreError(f"key {key.kid} is not in the database, and cannot become {key.phase}")
        believed = self._integrity.holds("signing_keys", before)
        if not believed and key.phase is not Phase.REVOKED:
            raise SealError(
                f"the row of key {key.kid} was not written by this installation, or was changed since: it cannot "
                f"become {key.phase}. Revoke the key, or restore the database from a backup"
            )
        values = _key_values(key)
        if believed:  # else no more is known of it than what is to be written
            values = {name: value for name, value in values.items() if name == "kid" or name in CHANGES_OF_KEY}
        if believed and before["last_exp"] is not None:
            values["last_exp"] = max(before["last_exp"], values["last_exp"] or before["last_exp"])
        if not key.has_private:
            values["sealed"] = None
        integrity.SIGNING_KEYS.put(self._connection, self._integrity, values, anew=True)

    def complete_key(self, row: KeyRow) -> None:
        """Give an adopted key its private half: store ``row`` in its place, but for ``last_exp``, which stays.

        Raise :class:`StoreError` where there is no adopted key of its kid, keyset, sequence and public half in grace.
        """
        key = row.key
        before = self._locked_key(key.kid)
        wanted = (key.keyset, key.sequence, key.public_jwk, Origin.ADOPTED, Phase.GRACE)
        same = ("keyset", "sequence", "public_jwk", "origin", "phase")
        if (
            before is None
            or tuple(before[name] for name in same) != wanted
            or not self._integrity.holds("signing_keys", before)
        ):
            raise StoreError(f"key {key.kid} is no adopted key in grace, and cannot be given a private half")
        values = _key_values(key) | _private(row)
        kept = {name: before[name] for name in ("last_exp", "created_at", "activated_at", "rotate_at")}
        integrity.SIGNING_KEYS.put(self._connection, self._integrity, values | kept)

    def raise_last_exp(self, kid: Kid, exp: datetime) -> bool:
        """Raise ``last_exp`` of an active key, locking its row; False, with nothing changed, if it is not active.

        Where the row was changed by somebody else it stays as it is: nobody believes it, and the witness knows how long
        tokens on the key can live.
        """
        row = self._locked_key(kid)
        if row is None or row["phase"] != Phase.ACTIVE:
            return False
        values = {"kid": kid, "last_exp": max(to_us(exp), row["last_exp"] or 0)}
        integrity.SIGNING_KEYS.put(self._connection, self._integrity, values)
        return True

    def _locked_key(self, kid: Kid) -> integrity.Columns | None:
        return integrity.SIGNING_KEYS.lock(self._connection, {"kid": kid})

    def put_wish(self, keyset: KeysetName, wish: Wish) -> None:
        """Remember what an operator asks of a keyset, in place of what was asked before."""
        asked.put_wish(self._connection, self._integrity, keyset, wish)

    def drop_wish(self, keyset: KeysetName) -> None:
        """Forget what was asked of a keyset: it is fulfilled."""
        asked.drop_wish(self._connection, keyset)

    # -------------------------------------------------------------------------------------------- replicas, sightings

    def put_sighting(self, sighting: Sighting) -> None:
        """Insert or replace a sighting (one per replica and kid)."""
        values = {
            "replica": sighting.replica,
            "kid": sighting.kid,
            "keyset": sighting.keyset,
            "seen_at": to_us(sighting.seen_at),
            "absent_until": to_us(sighting.absent_until),
            "boot_id": sighting.boot_id,
            "since_boot_us": span_to_us(sighting.since_boot),
        }
        integrity.SIGHTINGS.put(self._connection, self._integrity, values, anew=True)

    def delete_sightings(self, replica: ReplicaId, kids: Sequence[Kid]) -> None:
        """Forget that ``replica`` holds ``kids``."""
        DELETE_SIGHTING.run(self._connection, [(replica, kid) for kid in kids])

    def put_replica(self, row: ReplicaRow) -> None:
        """Insert or replace a replica."""
        values = {
            "replica": row.replica,
            "started_at": to_us(row.started_at),
            "seen_at": to_us(row.seen_at),
            "forgotten_at": to_us(row.forgotten_at),
        }
        integrity.REPLICAS.put(self._connection, self._integrity, values, anew=True)
        self._replicas = None

    def put_publication(
        self, replica: ReplicaId, keyset: KeysetName, generation: int, sha256: str, at: datetime
    ) -> None:
        """Record what a replica's tree holds; one row per replica, keyset and generation."""
        PUT_PUBLICATION.run(self._connection, [(replica, keyset, generation, sha256, to_us(at))])

    # ---------------------------------------------------------------------------------------------- workspaces, tokens

    def insert_workspaces(self, rows: Sequence[WorkspaceState]) -> None:
        """Insert new workspaces, or bring removed ones back, in bulk."""
        issue.insert_workspaces(self._connection, self._integrity, rows)

    def update_workspaces(self, rows: Sequence[WorkspaceState]) -> None:
        """Store what a config or a restore changes of existing workspaces, in bulk; the sequence never goes back."""
        issue.update_workspaces(self._connection, self._integrity, rows)

    def fail_workspaces(self, workspaces: Sequence[WorkspaceId], retry_at: datetime, fault: str) -> None:
        """Count a failed issue and put off the next try."""
        issue.fail_workspaces(self._connection, workspaces, retry_at, fault)

    def renew_workspace(self, workspace: WorkspaceId, at: datetime) -> None:
        """Let what a row says of a workspace's token follow from its tokens, and the next one be due ``at``."""
        issue.renew_workspace(self._connection, list(self.tokens(workspace)), workspace, at)

    def issue(self, tokens: Sequence[IssuedToken]) -> bool:
        """Commit a batch: prior tokens to grace, new ones in, workspaces moved on, deliveries wanted.

        Return False if any workspace's sequence moved since the plan, or it was removed: roll back then.
        """
        return issue.issue(self._connection, tokens)

    def retire_tokens(self, jtis: Sequence[Jti], at: datetime) -> None:
        """Mark expired tokens as retired and erase their sealed text, in bulk."""
        RETIRE_TOKEN.run(self._connection, [(to_us(at), jti) for jti in jtis])

    def revoke_token(self, jti: Jti, at: datetime, reason: str) -> None:
        """Mark one token as revoked and erase its sealed text; the first revocation stands."""
        revoke.revoke_token(self._connection, self._integrity, jti, at, reason)

    def revoke_tokens_of_key(self, kid: Kid, at: datetime, due_at: datetime) -> RevokedTokens:
        """Mark the tokens on ``kid`` that live at ``due_at``, erase their texts, make their workspaces due; in bulk."""
        return revoke.revoke_tokens_of_key(self._connection, kid, at, due_at)

    def lock_workspace(self, workspace: WorkspaceId) -> WorkspaceState | None:
        """Return one workspace with its row locked until the end of the transaction."""
        row = self._first(LOCK_WORKSPACE, id=workspace)
        return None if row is None else rows.workspace(row, self._integrity)

    def make_due(self, workspace: WorkspaceId, at: datetime, reason: str, current_ends_at: datetime | None) -> bool:
        """Make a workspace's next token due at ``at``, and let its current one end by ``current_ends_at``, if given.

        An earlier failure to issue is forgotten. Return False if there is no such workspace.
        """
        return asked.make_due(self._connection, workspace, at, reason, current_ends_at)

    def put_overlaps(self, overlaps: Sequence[Overlap]) -> None:
        """Store how long replaced tokens stay valid; of two for one token the one that ends first stands."""
        asked.put_overlaps(self._connection, self._integrity, overlaps)

    def drop_overlaps(self, jtis: Sequence[Jti]) -> None:
        """Forget overlaps that are over."""
        asked.drop_overlaps(self._connection, jtis)

    # ------------------------------------------------------------------------------------------------------ deliveries

    def want_deliveries(self, rows: Sequence[DeliveryRow]) -> None:
        """Insert or replace deliveries, in bulk; one that wants a later token by now is left alone."""
        deliveries.want_deliveries(self._connection, self._integrity, rows)

    def put_off(self, rows: Sequence[DeliveryRow]) -> None:
        """Store when each of these is due; one that wants another token by now, or none, is left alone."""
        deliveries.put_off(self._connection, rows)

    def drop_deliveries(self, pairs: Sequence[tuple[WorkspaceId, SinkId]]) -> None:
        """Delete the deliveries of sinks that are gone; what only they waited for is erased."""
        deliveries.drop_deliveries(self._connection, pairs)

    def delivered(self, workspace: WorkspaceId, sink: SinkId, sequence: int, at: datetime) -> bool:
        """Record a delivery. When no sink of the workspace is open any more, erase the text of superseded tokens.

        Return False, with nothing changed, if that sink is gone, or its delivered sequence is at or past ``sequence``.
        """
        return deliveries.delivered(self._connection, self._integrity, workspace, sink, sequence, at)

    def delivered_as_wanted(self, rows: Sequence[DeliveryRow], at: datetime) -> list[DeliveryRow]:
        """Do as :meth:`delivered` for many at once that still want just this token; return the others, untouched."""
        return deliveries.delivered_as_wanted(self._connection, self._integrity, rows, at)

    def delivery_failed(
        self, workspace: WorkspaceId, sink: SinkId, sequence: int, retry_at: datetime, error: str
    ) -> None:
        """Count a failed attempt for ``sequence`` (a later wanted one is left alone)."""
        deliveries.delivery_failed(self._connection, workspace, sink, sequence, retry_at, error)

    def release_leases(self, now: datetime) -> None:
        """At a start: make deliveries due now that the process before had claimed and neither made nor failed.

        A database in a file has one process at a time, by the lock on its directory. PostgreSQL may have many: nothing
        is changed there, and a lease runs out by itself.
        """
        deliveries.release_leases(self._connection, now)

    def redeliver(self, workspace: WorkspaceId, sink: SinkId, sequence: int, at: datetime) -> None:
        """Make a delivery of ``sequence`` due again although it was made, as the sink has lost it: without grace."""
        deliveries.redeliver(self._connection, workspace, sink, sequence, at)

    # -------------------------------------------------------------------------------------------------------- requests

    def add_request(self, request: RequestRow) -> int:
        """Store a request that is not finished; return the id that it got, whatever its own says."""
        row = sa.insert(schema.requests).values(
            kind=request.kind,
            arguments=encode_details(request.arguments),
            actor=request.actor,
            uid=request.uid,
            reason=request.reason,
            created_at=to_us(request.created_at),
            nonce=request.nonce,
            bound=encode_details(request.bound),
            kek_id=request.kek_id,
            mac=request.mac,
            result="",
        )
        stored = self._connection.execute(row).inserted_primary_key
        if stored is None:
            raise StoreError("the database gave a new request no id")
        return int(stored[0])

    def finish_request(self, request_id: int, at: datetime, *, succeeded: bool, result: str) -> None:
        """Record the outcome of a request, and erase what it held sealed."""
        outcome: dict[str, object] = {"finished_at": to_us(at), "succeeded": int(succeeded), "result": result}
        request = self.request(request_id)
        if request is not None and SEALED in request.arguments:
            kept = {name: value for name, value in request.arguments.items() if name != SEALED}
            outcome["arguments"] = encode_details(kept)
        self._connection.execute(sa.update(schema.requests).where(schema.requests.c.id == request_id).values(**outcome))

    def put_aside_requests(self, request_ids: Sequence[int], at: datetime, result: str) -> None:
        """Record that requests were not carried out, in bulk, and erase the arguments of those that hold one sealed."""
        same = {"at": to_us(at), "said": result, "sealed": f'%"{SEALED}"%'}
        rows = [{"number": number, **same} for number in request_ids]
        self._connection.execute(PUT_ASIDE, rows)

    # ----------------------------------------------------------------------------------------------------------- audit

    def append(self, events: Sequence[Event], *, first_seq: int | None = None) -> AuditHead:
        """Chain ``events`` to the head, in bulk; the head's row is locked last, so call it last."""
        return chain.append(self._connection, events, first_seq)

    def mark_logged(self, seq: int) -> None:
        """Record that the log has every event up to ``seq``."""
        chain.mark_logged(self._connection, seq)

    def prune(self, *, tokens_before: datetime, audit_before: datetime, at_most: int) -> Pruned:
        """Delete ended tokens whose ``exp`` is older, finished requests and logged events, ``at_most`` of each kind.

        Keys are never deleted, nor the last token of a workspace that is still configured.
        """
        tokens = pruning.prune_tokens(self._connection, tokens_before, at_most)
        requests = pruning.prune_requests(self._connection, audit_before, at_most)
        events = chain.prune_events(self._connection, audit_before, at_most)
        return Pruned(events, more=at_most in (tokens, requests, events))
