"""Writes the page of all events from the catalogue: ``python -m rotator.log_catalogue > docs/events.md``.

Imports nothing but the catalogue.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from rotator.core.events import EventName
from rotator.log_events import AUDIT_EVENTS, AUDIT_FIELDS, LOG_EVENTS, Entry, LogEvent, message_id

_INTRODUCTION: Final = """\
# Events

<!-- Made by `python -m rotator.log_catalogue > docs/events.md`; change rotator/log_events.py, not this page. -->

Every line of the log has a name from this page, the same in each form that the log takes:

- **JSON lines**, one object per line: `timestamp` (UTC, the time of what happened, not of its logging), `level`,
  `event`, `logger`, then the event's own fields.
- **journal entries** under systemd: `MESSAGE` is a sentence for people, `ROTATOR_EVENT` the name, and each field one of
  its own in capitals: `ROTATOR_KEYSET`, `ROTATOR_WORKSPACE`, `ROTATOR_KID`, `ROTATOR_JTI` … `MESSAGE_ID` is fixed for
  each event and never changes. What is too long for one entry is cut, and says so.
- **lines for people** on a terminal.

      journalctl -u rotator ROTATOR_WORKSPACE=acme
      journalctl -u rotator -p err -o json
      journalctl MESSAGE_ID={example}          # every {example_name}, of any unit

Levels: `critical` asks a person to act, or tokens will be refused; `error` says that something was not done and is
being tried again; `warning` can wait for working hours. A fault is logged when it begins and when what is wrong
changes, not at every attempt; `rotator status` shows the faults that stand now.

No token, private key or key-encryption key is ever in a line. Whatever looks like one is replaced by `[secret]`.
"""

_AUDIT: Final = """\
## Changes of state

Each is also an event of the audit trail (`rotator audit`), committed with the change itself and chained by hash. It
reaches the log at least once: after a crash between the commit and the line it comes again, with the same `seq`. The
log level does not hold these back.

All carry {common} beside the fields listed. `actor` is `rotator` for the schedule, else a
person as `NAME(uid)`; then `command` is what that person used, in the words of the control socket. `hash` is the head
of the chain at this event, so that the journal, or the host that it is sent to, holds what `rotator audit verify
--head` compares with.
"""

_LOG: Final = """\
## Everything else

These change nothing by themselves.
"""


def render() -> str:
    """Return the page, in Markdown."""
    example = "key.activated"
    introduction = _INTRODUCTION.format(example=message_id(example), example_name=f"`{example}`")
    audit = _AUDIT.format(common=", ".join(f"`{name}`" for name in AUDIT_FIELDS))
    return "\n".join([introduction, audit, *_table(AUDIT_EVENTS), "", _LOG, *_table(LOG_EVENTS), ""])


def _table(entries: Mapping[EventName, Entry] | Mapping[LogEvent, Entry]) -> Iterator[str]:
    yield "| event | level | what it means | fields | MESSAGE_ID |"
    yield "|---|---|---|---|---|"
    for name, entry in entries.items():
        shown = _code(entry.fields)
        yield f"| `{name}` | {entry.level} | {entry.meaning} | {shown} | `{message_id(str(name))}` |"


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(render())
