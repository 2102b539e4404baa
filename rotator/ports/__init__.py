"""The protocols that the engine is written against, and the records that cross them.

Implementations live in ``rotator.adapters`` and, simulated, in the tests. Instants are aware UTC datetimes.
"""

from rotator.core.schedule import Calendar
from rotator.core.timeguard import ClockMark, Reading
from rotator.ports.delivery import Courier, Parcel
from rotator.ports.log import EventLog
from rotator.ports.publishing import Publication, PublishedSet, Publisher, ServedSet, ServedSets
from rotator.ports.records import (
    SEALED,
    Answer,
    AuditHead,
    AuditRow,
    AuditWanted,
    DeliveryAlarm,
    DeliveryRow,
    IssuedToken,
    KeyHolder,
    KeyLoad,
    KeyRow,
    KeysetRow,
    Reach,
    ReplicaRow,
    RequestRow,
    RevokedTokens,
    RowProblem,
    Sighting,
    Target,
    TokenRow,
    WorkspaceSeen,
)
from rotator.ports.revocations import Journal, RevocationEntry, RevocationJournal, RevocationKind
from rotator.ports.secrets import (
    FoundKey,
    KekRow,
    KeyMaker,
    KeyMaterial,
    Keyring,
    MintOrder,
    Sealed,
    Sealer,
    Sealing,
    Signer,
    TokenMaker,
)
from rotator.ports.store import Snapshot, Store, Transaction
from rotator.ports.time import Clock
from rotator.ports.witness import PublishedWitness, Witness, WitnessedKey, WitnessedKeyset, WitnessRecord

__all__ = [
    "SEALED",
    "Answer",
    "AuditHead",
    "AuditRow",
    "AuditWanted",
    "Calendar",
    "Clock",
    "ClockMark",
    "Courier",
    "DeliveryAlarm",
    "DeliveryRow",
    "EventLog",
    "FoundKey",
    "IssuedToken",
    "Journal",
    "KekRow",
    "KeyHolder",
    "KeyLoad",
    "KeyMaker",
    "KeyMaterial",
    "KeyRow",
    "Keyring",
    "KeysetRow",
    "MintOrder",
    "Parcel",
    "Publication",
    "PublishedSet",
    "PublishedWitness",
    "Publisher",
    "Reach",
    "Reading",
    "ReplicaRow",
    "RequestRow",
    "RevocationEntry",
    "RevocationJournal",
    "RevocationKind",
    "RevokedTokens",
    "RowProblem",
    "Sealed",
    "Sealer",
    "Sealing",
    "ServedSet",
    "ServedSets",
    "Sighting",
    "Signer",
    "Snapshot",
    "Store",
    "Target",
    "TokenMaker",
    "TokenRow",
    "Transaction",
    "Witness",
    "WitnessRecord",
    "WitnessedKey",
    "WitnessedKeyset",
    "WorkspaceSeen",
]
