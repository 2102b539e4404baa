"""The words that are stored, shown and read by programs, and what a record says where nothing is said."""

from datetime import UTC, datetime

from rotator.core.actions import Reason
from rotator.core.model import (
    DEFAULT_KEYSET,
    Algorithm,
    Jti,
    KeysetName,
    KeysetState,
    Kid,
    Origin,
    Overlap,
    Phase,
    SigningKey,
    Wish,
    WorkspaceId,
    WorkspaceState,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_words_are_stable() -> None:
    """Databases hold them, and programs go by them."""
    assert DEFAULT_KEYSET == "default"
    assert list(Algorithm) == ["ES256", "RS256", "EdDSA"]
    assert list(Phase) == ["pending", "active", "grace", "retired", "revoked"]
    assert list(Origin) == ["made", "imported", "adopted"]
    assert list(Reason) == [
        "first",
        "spare",
        "successor",
        "security_period",
        "signer_lost",
        "algorithm_changed",
        "unusable",
        "grace_over",
        "keyset_ended",
        "claims_changed",
        "key_revoked",
        "token_revoked",
        "requested",
        "overlap_over",
        "restored",
        "clock_set_back",
    ]


def test_a_key_is_ours_and_whole_where_nothing_else_is_said() -> None:
    key = SigningKey(
        kid=Kid("k"), keyset=DEFAULT_KEYSET, sequence=1, algorithm=Algorithm.ES256, phase=Phase.PENDING, created_at=AT
    )
    assert (key.origin, key.public_jwk) == (Origin.MADE, "")
    assert (key.has_private, key.authentic, key.opens) == (True, True, True)


def test_a_keyset_begins_empty_and_is_used() -> None:
    state = KeysetState(name=KeysetName("default"))
    assert (state.keys, state.next_sequence, state.schedule_fingerprint) == ((), 1, "")
    assert (state.ever_active, state.first_publication, state.publish_blocked) == (False, False, False)
    assert (state.tree_intact, state.in_use, state.shows_revoked) == (True, True, False)
    assert state.fresh_at_hand is False
    assert (state.published, state.out_since, state.wish) == (None, {}, None)


def test_what_people_ask_for_is_no_emergency_and_needs_no_reason() -> None:
    wish = Wish(asked_at=AT, actor="ada(1000)")
    assert (wish.reason, wish.emergency) == ("", False)
    assert Overlap(Jti("t"), WorkspaceId("acme"), AT, "ada(1000)").reason == ""


def test_a_workspace_begins_without_a_token() -> None:
    state = WorkspaceState(id=WorkspaceId("acme"), keyset=DEFAULT_KEYSET, sequence=0, due_at=AT)
    assert (state.claims_fingerprint, state.schedule_fingerprint, state.sinks_fingerprint) == ("", "", "")
    assert (state.due_reason, state.current, state.removed_at) == ("", None, None)
