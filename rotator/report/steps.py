"""What to do next about each kind of problem: one sentence for the person who looks at three in the morning."""

from typing import Final

_STEPS: Final[dict[str, str]] = {
    "clock": "see what the time should be (timedatectl); when it is right: rotator clock accept --reason WHY",
    "command": "see what that command waits for, or shorten its timeout; no other delivery waits for it",
    "config": "mend the config (rotator check), then: systemctl reload rotator",
    "delivery": "see that the sink can be written or run by the service's user; it is tried again by itself",
    "deliveries": "see that the daemon runs and keeps up: systemctl status rotator",
    "filesystem": "see to that mount: its server, its device, or whoever froze it; no other delivery waits for it",
    "foreign": "rotator published adopt --keep-for PERIOD (the longest that a token on its keys can still live),"
    " or rotator published replace, which drops them at once",
    "journal": "look at that file, which only ever grows (its lines are JSON); what it revokes is revoked meanwhile",
    "kek": "put the key-encryption key back where the config says it is (rotator check); it is read again by itself",
    "key": "do not trust it: rotator audit list --key {name}; if the database was changed, restore it from a backup",
    "keyset": "rotator audit list --limit 20, and the log: journalctl -u rotator; it is tried again by itself",
    "leftover": "let the service's user write in that directory, or delete the file; it is tried again by itself",
    "meta": "see that the published directory can be written and is not full (rotator check), and who else writes to"
    " it; the file is written again by itself",
    "minting": "no token waits for it: they are signed by the daemon itself; see what ended it: journalctl -k",
    "publish": "see that the published directory can be written and is not full (rotator check); it is tried again",
    "request": "find out who else can write to the database (rotator audit list); this is shown for an hour",
    "replica": "start it again, or make it known that it is gone for good",
    "row": "somebody else writes to the database: find out who. What could be made good was; else restore a backup",
    "served": "see what answers there (curl -i URL): the server of the tree, or a cache before it that keeps a set for"
    " longer than publish.lag says",
    "state": "start the daemon: systemctl start rotator, or: rotator run",
    "store": "see that the database can be reached and written (rotator check)",
    "tick": "see the log: journalctl -u rotator; a restart loses nothing",
    "token": "the token is issued anew at its next rotation; the log says more: journalctl -u rotator",
    "witness": "compare the database with your backups before anything else; the text above says what does not fit",
    "workspace": "rotator audit list --workspace {name}, and the log: journalctl -u rotator",
    "workspaces": "see that the daemon runs and keeps up: systemctl status rotator; journalctl -u rotator",
}


def next_step(kind: str, name: str) -> str:
    """Return what to do about a problem of ``kind`` with ``name``."""
    return _STEPS.get(kind, "see the log: journalctl -u rotator").format(name=name)
