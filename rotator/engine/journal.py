"""The journal of revocations: known from the start on, and written before anything else is done about a revocation."""

from datetime import datetime

from rotator.engine.run import Run
from rotator.errors import JournalError
from rotator.ports import RevocationEntry


def learn(run: Run, now: datetime) -> None:
    """Take in what the journal says and is news; write down what could not be written before.

    What it names is revoked from then on, whatever the database says, whether or not the KEK is there.
    """
    while run.unwritten and _append(run, run.unwritten[0]):
        del run.unwritten[0]
    journal = run.around.journal.read()
    if journal is run.journal:
        return
    known = {entry.id for entry in (*run.journal.entries, *run.latest)}
    run.journal = journal
    there = {entry.id for entry in journal.entries}
    run.latest = [entry for entry in run.latest if entry.id not in there]
    for entry in journal.entries:
        if entry.id not in known:
            _remember(run, entry, now)
    if journal.problem:
        run.fault("journal", journal.problem, "journal.faulty")
    elif not run.unwritten:
        run.healed("journal")


def write_down(run: Run, entry: RevocationEntry, now: datetime) -> str:
    """Let the journal know of a revocation, and this run; return why it could not be written, or the empty string.

    What was compromised does not stay in use because of that: it is known all the same, and written as soon as it can.
    """
    if written_down(run, entry.id) is not None:
        return ""
    _remember(run, entry, now)
    if _append(run, entry):
        run.latest.append(entry)
        return ""
    run.unwritten.append(entry)
    return run.faults["journal"]


def written_down(run: Run, nonce: str) -> RevocationEntry | None:
    """Return the entry of a revocation that was found before, be it in the journal or still to be written there."""
    return next((entry for entry in (*run.latest, *run.unwritten, *run.journal.entries) if entry.id == nonce), None)


def _append(run: Run, entry: RevocationEntry) -> bool:
    try:
        run.around.journal.append(entry)
    except JournalError as error:
        run.fault("journal", str(error), "journal.faulty")
        return False
    return True


def _remember(run: Run, entry: RevocationEntry, now: datetime) -> None:
    run.revoked_kids |= set(entry.kids)
    # An end that nobody could look up is after the longest that a token lives.
    latest = now + max(map(run.policy.longest_lifetime, run.policy.keysets), default=run.compare_interval)
    run.revoked_jtis |= {jti: latest if exp is None else exp for jti, exp in entry.jtis.items()}
