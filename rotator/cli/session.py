"""How a command reaches the state: through the daemon where one answers, else by itself.

Imported only by commands that run: it pulls in what ``--help`` has no need of.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rotator.adapters.clock import SystemClock, wall_time
from rotator.cli.screen import tell
from rotator.config import load
from rotator.config.settings import DEFAULT_PATH, Config, Settings, config_path
from rotator.control_client import REASON_LIMIT, REASON_RULE, HungUpError, NoDaemonError, Wait, ask
from rotator.core.secret import Secret
from rotator.errors import ConfigError, RefusedError, RotatorError
from rotator.report.shape import rfc3339

if TYPE_CHECKING:  # heavy
    from rotator.cli.outside import Witnessed
    from rotator.ports import Snapshot

SYSTEM_SOCKET: Final = Path("/run/rotator/control.sock")
"""Where the unit puts it. Other users' shells lack the environment that tells the service so."""

PATIENCE: Final = timedelta(seconds=10)
"""How long a daemon may take to show that it lives."""

Arguments = Mapping[str, str | int | bool | None]


def chosen_path(option: Path | None) -> Path:
    """Return the path of the config: the option, else the environment, else the default."""
    return config_path(option, os.environ)


def load_config(option: Path | None, *, looks_at_sinks: bool = False) -> Config:
    """Load the config in full; raise :class:`ConfigError` with everything that is wrong.

    ``looks_at_sinks``: warn of links in their paths. Whoever does not warn does without: a dead mount answers nobody.
    """
    return load(chosen_path(option), os.environ, now=SystemClock().read().now, looks_at_sinks=looks_at_sinks)


# ------------------------------------------------------------------------------------------------------------ reading


def read(
    option: Path | None, command: str, arguments: Arguments | None = None, *, patience: timedelta = PATIENCE
) -> Any:
    """Return the answer to a reading command as JSON: the daemon's, else made from the state itself."""
    return reader(option, patience=patience)(command, arguments or {})


def reader(option: Path | None, *, patience: timedelta = PATIENCE) -> Callable[[str, Arguments], Any]:
    """Return what answers reading commands, as :func:`read` does, for a command that asks more than once.

    A daemon that ends meanwhile is no failure: a question changes nothing, so that whoever answers now is asked again.
    """
    found = _find_reader(option, patience)

    def ask_who_is_there(command: str, arguments: Arguments) -> Any:
        nonlocal found
        try:
            return found(command, arguments)
        except (NoDaemonError, HungUpError):
            found = _find_reader(option, patience)
            return found(command, arguments)

    return ask_who_is_there


def _find_reader(option: Path | None, patience: timedelta) -> Callable[[str, Arguments], Any]:
    out_of_reach = ""
    for socket in _sockets(option):
        try:
            _require_life(socket, patience)
        except NoDaemonError as error:
            out_of_reach = str(error)
        else:
            return partial(ask, socket)
    config = load_config(option)

    def from_state(command: str, arguments: Arguments) -> Any:
        try:
            return _read_state(config, command, arguments)
        except RefusedError as error:
            raise RefusedError(f"{out_of_reach}, and {error}") from None

    return from_state


def ask_daemon(option: Path | None, command: str, patience: timedelta) -> Any:
    """Return what a running daemon answers to a question, or raise :class:`RotatorError`; the state is not opened."""
    for socket in _sockets(option):
        try:
            return ask(socket, command, timeout=patience)
        except NoDaemonError:
            continue
    raise NoDaemonError("no daemon answers")


def _require_life(socket: Path, patience: timedelta) -> None:
    """Raise :class:`RotatorError` for a daemon that is stopped or hangs; one that works may take its time to answer.

    It is asked for nothing, which it refuses at once.
    """
    try:
        ask(socket, "", timeout=patience)
    except ConfigError:
        return
    except RotatorError as error:
        if isinstance(error.__context__, TimeoutError):
            raise RotatorError(
                f"the daemon does not answer: nothing came from {socket} within {patience.total_seconds():g} seconds; "
                "see what it does: systemctl status rotator"
            ) from None
        raise


def settings_of(option: Path | None) -> Settings:
    """Return the settings of the config."""
    return _settings(chosen_path(option))


def _sockets(option: Path | None) -> Iterator[Path]:
    """Yield where a daemon may listen. A config that is wrong is told of by whoever needs all of it."""
    path = chosen_path(option)
    if path == DEFAULT_PATH and SYSTEM_SOCKET.exists():
        yield SYSTEM_SOCKET
    try:
        socket = _settings(path).control.socket
    except ConfigError:  # the daemon runs on the config before it, and is still to be reached
        from rotator.config.salvage import likely_socket  # noqa: PLC0415 - heavy

        socket = likely_socket(path, os.environ)
    yield socket


def _settings(path: Path) -> Settings:
    """Return the settings from the config's main file alone: a command must not read 100,000 workspaces for them."""
    from pydantic import ValidationError  # noqa: PLC0415 - heavy

    from rotator.config import derive  # noqa: PLC0415 - heavy
    from rotator.config.problems import Source, SyntaxFaultError  # noqa: PLC0415 - heavy
    from rotator.config.reading import read_text  # noqa: PLC0415 - heavy
    from rotator.config.schema import ConfigShape  # noqa: PLC0415 - heavy

    wrong: list[object] = []
    try:
        _, text = read_text(path, included=False)
        value, faults = Source(path, text).parse()
        shape = ConfigShape.model_validate(value)
        settings = derive.settings(shape, path.absolute().parent, os.environ, lambda *found: wrong.append(found))
        if not faults and not wrong:
            return settings
    except (SyntaxFaultError, ValidationError):
        pass  # told in full, with lines, by the load below
    return load(path, os.environ, now=SystemClock().read().now).settings


def _read_state(config: Config, command: str, arguments: Arguments) -> Any:
    from rotator.cli import outside  # noqa: PLC0415 - heavy
    from rotator.wiring import open_readonly  # noqa: PLC0415 - heavy

    witnessed = outside.see_witness(config)
    if command == "status" and outside.lost_database(config.settings) is not None:
        with outside.empty_state() as snapshot:
            if outside.misfits(config, snapshot, witnessed):
                return _answer(config, snapshot, witnessed, command, arguments)
    if not config.settings.state_directory.exists():
        raise RefusedError(
            f"there is no state yet in {config.settings.state_directory}; the first start makes it: rotator run"
        )
    with open_readonly(config) as store:
        outside.trust(config, store)
        with store.read() as snapshot:
            return _answer(config, snapshot, witnessed, command, arguments)


def _answer(config: Config, snapshot: "Snapshot", witnessed: "Witnessed", command: str, arguments: Arguments) -> Any:
    from rotator.adapters.calendar import CronCalendar  # noqa: PLC0415 - heavy
    from rotator.adapters.publish import read_set  # noqa: PLC0415 - heavy
    from rotator.adapters.signature import verify_signature  # noqa: PLC0415 - heavy
    from rotator.cli import outside  # noqa: PLC0415 - heavy
    from rotator.report.answers import READING, View  # noqa: PLC0415 - heavy
    from rotator.report.overlaid import with_revocations  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    reading = SystemClock().read()
    beside = outside.beside(snapshot, witnessed)
    view = View(
        # A verdict asks the witness itself, so that it can say whose word it is.
        snapshot=snapshot if command == "token.verify" else with_revocations(snapshot, beside, reading.now),
        policy=config.policy,
        now=reading.now,
        calendar=CronCalendar(),
        faults=outside.find_faults(config, snapshot, reading, witnessed) if command == "status" else {},
        verify_signature=verify_signature,
        published_set=partial(read_set, config.settings.publish_directory),
        several_replicas=outside.several_replicas(config.settings),
        beside=beside,
    )
    return to_json(READING[command](view, arguments))


# ----------------------------------------------------------------------------------------------------------- changing


class Said(NamedTuple):
    """What came of a request that was carried out."""

    text: str
    secret: Secret[str] | None = None
    follows: bool = False
    """What counts is done, and the rest follows when what it needs is back: nobody can wait for it."""
    request: int | None = None
    """The number of a request that is accepted and still under way; None: it was carried out."""


def request(
    option: Path | None,
    command: str,
    arguments: Arguments,
    reason: str,
    *,
    offline: bool,
    secret: Secret[str] | None = None,
    settle: bool = False,
    wait: Wait = Wait.SHORTLY,
    longest: timedelta | None = None,
) -> Said:
    """Have a changing command carried out; return what to say and, for some, a secret.

    ``secret`` goes with it: over the socket alone, and sealed before it is stored. ``settle``: without a daemon, also
    do what it makes due, as a daemon would after it. Raise :class:`RefusedError` when it was not done and will not be.
    """
    if len(reason) > REASON_LIMIT or not reason.isprintable():
        raise ConfigError(f"--reason: {REASON_RULE}; this one has {len(reason)} characters")
    unsure = (
        _NOT_SHOWN
        if command == "token.show"
        else _UNSURE.format(listing=_listing(command), since=rfc3339(wall_time().replace(microsecond=0)))
    )
    try:
        if offline:
            return _submit(load_config(option), command, arguments, reason, secret, settle=settle)
        with _told_while_waiting(wait):
            return _ask_for(option, command, arguments, reason, secret, wait, longest)
    except HungUpError as error:
        raise HungUpError(f"{error}\n{unsure}") from None
    except KeyboardInterrupt:
        tell(unsure)
        raise


def wait_for(*, wait: bool) -> Wait:
    """Return how long to wait where ``--wait`` was given, or was not."""
    return Wait.TO_THE_END if wait else Wait.SHORTLY


def exit_code(said: Said, *, wait: bool) -> int:
    """Return 0, and 3 for whoever wanted to wait to the end where that did not come, as the daemon stopped."""
    return 3 if wait and said.request is not None else 0


_UNSURE: Final = """\
what you asked for may have been stored: then it is carried out, at the daemon's next start at the latest. Before you \
ask again, look:
    rotator {listing}
    rotator audit list --since {since}"""


_NOT_SHOWN: Final = "the token was shown to nobody else, and will not be; ask again"


def _listing(command: str) -> str:
    """Return the command that shows what a request changes."""
    return {"key": "keys list", "keyset": "keys list", "clock": "status", "config": "status"}.get(
        command.partition(".")[0], "tokens list"
    )


@contextmanager
def _told_while_waiting(wait: Wait) -> Iterator[None]:
    """Say after a while that a command that waits to the end still does."""
    timer = threading.Timer(PATIENCE.total_seconds(), tell, [_STILL_WAITING])
    timer.daemon = True
    if wait is Wait.TO_THE_END:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


_STILL_WAITING: Final = "the daemon has not done it yet; this waits until it has, and Ctrl-C ends the waiting alone"


def _ask_for(
    option: Path | None,
    command: str,
    arguments: Arguments,
    reason: str,
    secret: Secret[str] | None,
    wait: Wait,
    longest: timedelta | None,
) -> Said:
    nobody = ""
    for socket in _sockets(option):
        try:
            answer = ask(socket, command, arguments, reason, secret=secret, wait=wait, longest=longest)
        except NoDaemonError as error:
            nobody = str(error)
            continue
        if not answer["finished"]:
            if command == "token.show" or not answer["request"]:
                raise RotatorError(answer["text"])
            return Said(answer["text"], request=answer["request"])
        secret = None if answer["secret"] is None else Secret(answer["secret"])
        return Said(answer["text"], secret, answer["follows"])
    settings_of(option)  # a config that is wrong comes first: without it no daemon can be started
    raise RefusedError(
        f"{nobody}; start it (systemctl start rotator, or: rotator run), or do it without one: --offline"
    )


def _submit(
    config: Config, command: str, arguments: Arguments, reason: str, secret: Secret[str] | None, *, settle: bool
) -> Said:
    from rotator.log import configure_notes  # noqa: PLC0415 - heavy
    from rotator.wiring import offline  # noqa: PLC0415 - heavy

    configure_notes(sys.stderr)
    with offline(config) as state:
        number, answer = state.submit(command, dict(arguments), reason, secret)
        if settle:
            state.settle()
        faults = "; ".join(state.engine.run.faults.values())
    if answer is None and number and command != "token.show":
        in_its_way = f". What is in its way now: {faults}" if faults else ""
        return Said(f"accepted as request {number}; the daemon does it when it is started{in_its_way}", request=number)
    if answer is None:
        raise RefusedError(f"it could not be done now: {faults}")
    if not answer.succeeded:
        raise RefusedError(answer.text)
    return Said(answer.text, answer.secret, answer.follows)
