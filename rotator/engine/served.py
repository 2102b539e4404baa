"""What verifiers are served, held against what this replica has published; what stays behind for long is a fault."""

from collections.abc import Iterable, Iterator

from rotator.core.durations import format_duration
from rotator.core.model import KeysetName
from rotator.engine.run import Run
from rotator.errors import PublishError
from rotator.ports import KeysetRow, Reading, ServedSet


def compare_served(run: Run, rows: Iterable[KeysetRow], reading: Reading) -> None:
    """Ask for a new look at what is served, and name where the last one found what no verifier should be given.

    A cache may lag behind by ``publish.lag``; from then on each new key waits longer than its propagation period.
    """
    served = run.around.served
    if served is None:
        return
    names = [row.name for row in rows if row.ended_at is None]
    for name in names:
        seen = served.latest(name)
        if seen is not None:
            _compare(run, name, seen)
    for subject in [subject for subject in run.faults if subject.startswith("served:")]:
        if subject.removeprefix("served:") not in names:
            run.healed(subject)
    served.refresh(names, reading.now)


def _compare(run: Run, name: KeysetName, seen: ServedSet) -> None:
    problem = seen.problem or next(_lagging(run, name, seen), "")
    if problem:
        text = f"{problem}; no new key of keyset {name} signs before that is right"
        run.fault(f"served:{name}", text, "served.behind", keyset=name)
    else:
        run.healed(f"served:{name}")


def _lagging(run: Run, name: KeysetName, seen: ServedSet) -> Iterator[str]:
    try:
        published = run.around.publisher.read(name)
    except PublishError:
        return  # which says so itself
    if published is None:
        return
    lag = run.policy.verifiers.publish_lag
    for url, kids in seen.shown.items():
        behind = None if kids is None else next((kid for kid in published.kids if kid not in kids), None)
        if behind is None:
            run.served_behind.pop((name, url), None)
            continue
        since = run.served_behind.setdefault((name, url), seen.at)
        if since > seen.at:  # the clock was set back
            run.served_behind[name, url] = since = seen.at
        if seen.at - since > lag:
            yield f"{url} still lacks key {behind}, later than publish.lag ({format_duration(lag)}) allows"
