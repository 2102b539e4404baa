"""Where ``rotator plan`` has its plan from: the daemon, the state, or the state with another config supposed."""

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from rotator.adapters.calendar import CronCalendar
from rotator.adapters.clock import wall_time
from rotator.adapters.disk import describe, write_durably
from rotator.cli.output import Found, answer
from rotator.config import load
from rotator.config.outputs import require_own_place
from rotator.config.settings import DEFAULT_PATH, Config
from rotator.core.tokens import survey_sync
from rotator.engine.sync import refusal_of
from rotator.errors import ConfigError, RefusedError, RotatorError
from rotator.report.answers import LONGEST_HORIZON
from rotator.report.gantt import draw
from rotator.report.plans import Plan, plan_changed
from rotator.report.shape import to_json
from rotator.wiring import open_readonly


def find_plan(before: Path | None, after: Path | None, for_seconds: int, what_if: str) -> Found[Plan]:
    """Return the plan that was asked for.

    ``before`` and ``after`` are what ``--config`` named before the command and after it. A config after it that is not
    what is in force is held against what is.
    """
    arguments: dict[str, str | int | bool | None] = {"for_seconds": for_seconds}
    if what_if:
        arguments["what_if"] = what_if
    if after is None:
        return answer(before, "plan", Plan, arguments)
    standing = _standing(before)
    other = standing is not None and not _same_file(standing, after)
    if what_if and other:
        raise ConfigError("one thing is supposed at a time: --what-if, or a config that is not in force")
    if what_if:
        return answer(after, "plan", Plan, arguments)
    compared = _compared(standing if other else None, after, for_seconds)
    if isinstance(compared, Found):
        return compared
    found = answer(after, "plan", Plan, arguments)
    if compared and (other or standing is None):
        sys.stderr.write(f"rotator: this is what is in force; {after} could not be held against it: {compared}\n")
    return found


def _standing(before: Path | None) -> Path | None:
    """Return the config of the installation, where one is named before the command or in the environment."""
    if before is not None:
        return before
    named = os.environ.get("ROTATOR_CONFIG")
    return Path(named) if named else DEFAULT_PATH if DEFAULT_PATH.exists() else None


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _compared(standing: Path | None, wanted: Path, for_seconds: int) -> Found[Plan] | str:
    """Return the plan with ``wanted`` loaded.

    Where ``wanted`` has a state of its own and changes nothing of it, the empty text is returned; and where that state
    cannot be read, why: then the daemon is asked, which tells a viewer what it can tell.

    ``standing``: the config of another file that may name the installation; it does where ``wanted`` has no state.
    """
    config = load(wanted, os.environ, now=wall_time())
    alone = standing is None or config.settings.state_directory.exists()
    installation = config if standing is None or alone else load(standing, os.environ, now=wall_time())
    try:
        plan = _plan_with(config, installation, for_seconds)
    except RotatorError as error:
        if alone:
            return str(error)
        raise RefusedError(f"what {wanted} would change cannot be told without reading the state: {error}") from None
    nothing = plan.changes is None or plan.changes.nothing
    return "" if nothing and alone else Found(to_json(plan), plan)


def _plan_with(config: Config, installation: Config, for_seconds: int) -> Plan:
    horizon = timedelta(seconds=for_seconds)
    if not timedelta(0) < horizon <= LONGEST_HORIZON:
        raise ConfigError(f"the timeline ahead goes from a second to {LONGEST_HORIZON.days} days")
    now, calendar = wall_time(), CronCalendar()
    with open_readonly(installation) as store, store.read() as snapshot:
        survey = survey_sync(snapshot.workspaces(), config.policy)
        refused = refusal_of(snapshot.keysets(), config.policy, survey, now)
        return plan_changed(
            snapshot, config.policy, now, calendar, horizon=horizon, name=str(config.path), refused=refused
        )


# ---------------------------------------------------------------------------------------------------------- the picture

_MODE: Final = 0o644
"""It holds nothing that the published files do not."""


def save(path: Path, plan: Plan) -> None:
    """Write the picture, a file whole or not at all; raise :class:`RotatorError`."""
    require_own_place(path)
    try:
        write_durably(path.absolute(), draw(plan).encode(), _MODE)
    except OSError as error:
        raise RotatorError(f"{path} cannot be written: {describe(error)}") from None
