"""A sealed record opens in its own row, under its own KEK, unchanged; and nowhere else."""

import base64
import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.adapters.kek import KekRing, check_value
from rotator.adapters.sealing import NONCE_BYTES, AesGcmSealer, SourcedKeyring, associated_data
from rotator.core.model import KekId
from rotator.core.secret import Secret
from rotator.errors import KekError, SealError
from rotator.ports import KekRow, Keyring, Sealer
from tests.stand_ins import T0

OLD, NEW = KekId("old"), KekId("new")
KEYS = {OLD: bytes(range(32)), NEW: bytes(range(100, 132))}
PLAIN = b"a private key"


def ring(*kek_ids: KekId) -> KekRing:
    return KekRing({kek_id: Secret(KEYS[kek_id]) for kek_id in kek_ids})


@pytest.fixture
def sealer() -> Sealer:
    return AesGcmSealer(ring(NEW, OLD))


@dataclasses.dataclass(frozen=True)
class Row:
    """Where a record stands."""

    purpose: str = "token"
    record_id: str = "acme"
    kid: str = "kid-1"
    algorithm: str = "ES256"
    kek_id: KekId = NEW

    def seal(self, sealer: Sealer, plain: bytes = PLAIN) -> bytes:
        return sealer.seal(self.purpose, self.record_id, self.kid, self.algorithm, plain)

    def open(self, sealer: Sealer, sealed: bytes) -> bytes:
        return sealer.open(self.purpose, self.record_id, self.kid, self.algorithm, self.kek_id, sealed).reveal()


@given(st.binary(max_size=200))
def test_a_record_opens_in_its_own_row(plain: bytes) -> None:
    sealer = AesGcmSealer(ring(NEW, OLD))
    assert Row().open(sealer, Row().seal(sealer, plain)) == plain


def test_the_first_kek_seals_and_the_others_still_open(sealer: Sealer) -> None:
    before = AesGcmSealer(ring(OLD))
    assert (before.kek_id, sealer.kek_id) == (OLD, NEW)
    assert Row(kek_id=OLD).open(sealer, Row().seal(before)) == PLAIN


@pytest.mark.parametrize(
    "other",
    [
        Row(purpose="key"),
        Row(record_id="globex"),
        Row(kid="kid-2"),
        Row(algorithm="RS256"),
        Row(kek_id=OLD),
        Row(record_id="acmekid-", kid="1"),
    ],
    ids=str,
)
def test_a_record_that_was_moved_does_not_open(sealer: Sealer, other: Row) -> None:
    with pytest.raises(SealError, match=r"does not open under KEK .* changed, moved from another row"):
        other.open(sealer, Row().seal(sealer))


def test_a_record_of_another_key_under_the_same_id_does_not_open() -> None:
    sealed = Row().seal(AesGcmSealer(ring(NEW)))
    with pytest.raises(SealError, match="another key of that id"):
        Row().open(AesGcmSealer(KekRing({NEW: Secret(KEYS[OLD])})), sealed)


def test_a_record_under_a_kek_that_is_gone_says_which_one() -> None:
    sealed = Row().seal(AesGcmSealer(ring(OLD)))
    with pytest.raises(SealError, match="KEK old is needed"):
        Row(kek_id=OLD).open(AesGcmSealer(ring(NEW)), sealed)


def test_no_flipped_bit_goes_unseen(sealer: Sealer) -> None:
    sealed = Row().seal(sealer)
    for place in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(SealError):
            Row().open(sealer, bytes(changed))


def test_no_cut_goes_unseen(sealer: Sealer) -> None:
    sealed = Row().seal(sealer)
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            Row().open(sealer, sealed[:length])
    with pytest.raises(SealError):
        Row().open(sealer, sealed + b"\0")


def test_a_later_format_is_told_apart_from_damage(sealer: Sealer) -> None:
    with pytest.raises(SealError, match="not in a format that this version reads"):
        Row().open(sealer, b"\x02" + Row().seal(sealer)[1:])


def test_no_two_records_share_a_nonce(sealer: Sealer) -> None:
    sealed = [Row().seal(sealer) for _ in range(200)]
    assert len({record[1 : 1 + NONCE_BYTES] for record in sealed}) == len(sealed)


def test_a_sealed_record_does_not_hold_its_text(sealer: Sealer) -> None:
    assert PLAIN not in Row().seal(sealer)


def test_errors_do_not_hold_the_text_or_the_key(sealer: Sealer) -> None:
    with pytest.raises(SealError) as caught:
        Row(record_id="other").open(sealer, Row().seal(sealer))
    shown = f"{caught.value!r} {sealer!r}"
    assert PLAIN.decode() not in shown
    assert base64.urlsafe_b64encode(KEYS[NEW]).decode()[:20] not in shown


# --------------------------------------------------------------------------------------------------- associated data

# Digits and colons are what could blur the borders between parts.
PARTS = st.tuples(*[st.text(alphabet="01:a", max_size=4) | st.text(max_size=12)] * 5)


def decoded(content: bytes) -> tuple[str, ...]:
    rest = content.decode().removeprefix("rotator/v1/record ")
    parts = []
    while rest:
        match = re.match(r"([0-9]+):", rest)
        assert match
        start, end = match.end(), match.end() + int(match[1])
        parts.append(rest[start:end])
        rest = rest[end:]
    return tuple(parts)


@given(PARTS)
def test_associated_data_can_be_taken_apart_again(parts: tuple[str, str, str, str, str]) -> None:
    """So no two tuples share an encoding."""
    assert decoded(associated_data(*parts)) == parts


# ---------------------------------------------------------------------------------------------------------------- MAC


def test_a_mac_is_of_its_purpose_its_content_and_its_kek(sealer: Sealer) -> None:
    mac = sealer.mac("key", b"row")
    assert sealer.verify_mac("key", b"row", mac, NEW)
    assert not sealer.verify_mac("witness", b"row", mac, NEW)
    assert not sealer.verify_mac("key", b"rows", mac, NEW)
    assert not sealer.verify_mac("key", b"row", mac, OLD)
    assert not sealer.verify_mac("key", b"row", mac[:-1], NEW)
    assert not sealer.verify_mac("key", b"row", b"", NEW)


def test_a_mac_can_be_made_under_an_older_kek(sealer: Sealer) -> None:
    assert sealer.verify_mac("key", b"row", sealer.mac("key", b"row", OLD), OLD)


def test_nothing_is_authentic_under_a_kek_that_is_not_here(sealer: Sealer) -> None:
    gone = KekId("gone")
    assert not sealer.verify_mac("key", b"row", sealer.mac("key", b"row"), gone)
    with pytest.raises(SealError, match="KEK gone is needed"):
        sealer.mac("key", b"row", gone)


# ------------------------------------------------------------------------------------------------------------ keyring


class Source:
    """A KEK that can go away and come back."""

    def __init__(self, present: KekRing | None) -> None:
        self.present = present

    def __call__(self) -> KekRing:
        if self.present is None:
            raise KekError("there is no KEK")
        return self.present


def registered(*kek_ids: KekId) -> list[KekRow]:
    return [KekRow(kek_id, check_value(ring(kek_id), kek_id), T0) for kek_id in kek_ids]


def test_a_keyring_unlocks_with_every_known_kek() -> None:
    keyring: Keyring = SourcedKeyring(Source(ring(NEW, OLD)))
    sealer = keyring.unlock(registered(OLD, NEW))
    assert sealer.kek_id == NEW
    assert keyring.unlock([]) is sealer


def test_a_keyring_stays_locked_when_the_kek_is_gone_and_opens_when_it_is_back() -> None:
    source = Source(ring(OLD))
    keyring = SourcedKeyring(source)
    keyring.unlock(registered(OLD))
    source.present = None
    with pytest.raises(KekError, match="there is no KEK"):
        keyring.unlock(registered(OLD))
    source.present = ring(NEW)
    with pytest.raises(KekError, match="KEK old is needed"):
        keyring.unlock(registered(OLD))
    source.present = ring(OLD)
    assert keyring.unlock(registered(OLD)).kek_id == OLD


def test_a_keyring_that_changed_its_order_seals_under_the_new_first() -> None:
    source = Source(ring(OLD, NEW))
    keyring = SourcedKeyring(source)
    assert keyring.unlock(registered(OLD)).kek_id == OLD
    source.present = ring(NEW, OLD)
    assert keyring.unlock(registered(OLD)).kek_id == NEW


def test_a_keyring_gives_the_check_to_register() -> None:
    keyring = SourcedKeyring(Source(ring(NEW)))
    assert keyring.unlock([KekRow(NEW, keyring.check_value(NEW), T0)]).kek_id == NEW
    with pytest.raises(KekError, match="KEK old is needed"):
        keyring.check_value(OLD)


def test_records_that_are_sealed_together_open_one_by_one() -> None:
    """Each is bound to its own id, as if it had been sealed alone."""
    sealer = AesGcmSealer(ring(NEW, OLD))
    records = [(f"record-{number}", f"secret {number}".encode()) for number in range(3)]

    sealed = sealer.sealing("a purpose", "kid", "ES256").seal_many(records)

    for (record_id, secret), (blob, mac) in zip(records, sealed, strict=True):
        assert sealer.verify_mac("a purpose", record_id.encode(), mac, sealer.kek_id)
        assert sealer.open("a purpose", record_id, "kid", "ES256", sealer.kek_id, blob).reveal() == secret
        with pytest.raises(SealError):
            sealer.open("a purpose", "another", "kid", "ES256", sealer.kek_id, blob)
