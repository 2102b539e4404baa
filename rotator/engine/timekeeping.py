"""Holds the clock against all that is remembered of time: by the database, and by the witness of a newer one."""

from datetime import datetime
from typing import NamedTuple

from rotator.core.timeguard import ClockMark, Verdict, judge
from rotator.engine.recover import witnessed_clock
from rotator.engine.run import Run
from rotator.ports import Reading, Snapshot


class Judgement(NamedTuple):
    """Whether a reading is trusted, and what it was held against."""

    verdict: Verdict
    against: ClockMark | None
    """The memory that it does not fit; None where it fits, or where there is none."""


def judge_clock(run: Run, snapshot: Snapshot, reading: Reading) -> Judgement:
    """Judge ``reading`` by what the database remembers, and by the witness where an older database was put back."""
    stored = snapshot.clock_mark()
    known = stored or run.clock  # somebody who takes the row away does not make us forget
    verdict = _verdict(run, known, reading)
    if not verdict.trusted:
        return Judgement(verdict, known)
    witnessed = witnessed_clock(run, snapshot, lost=stored is None)
    if witnessed is not None:
        held = _verdict(run, witnessed, reading).held
        if held:
            return Judgement(Verdict(verdict.mark, held), witnessed)
    return Judgement(verdict, None)


def _verdict(run: Run, mark: ClockMark | None, reading: Reading) -> Verdict:
    return judge(
        mark,
        reading,
        clock_skew=run.policy.clock_skew,
        max_gap=run.policy.clock_max_gap,
        server_time=run.around.store.trusted_time(),
    )


def trusted_time(run: Run, reading: Reading) -> datetime:
    """Return the latest moment that is certain to have come: the clock's, unless it is not trusted."""
    if "clock" not in run.faults:
        return reading.now
    with run.around.store.read() as snapshot:
        mark = snapshot.clock_mark()
    return reading.now if mark is None else min(reading.now, mark.high_water_at)
