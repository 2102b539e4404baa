"""What holds for a database on a server: errors without secrets, and whose time is evidence."""

import socket
from collections.abc import Callable
from contextlib import closing

import pytest
import sqlalchemy as sa

from rotator.adapters.store import connect, open_store
from rotator.adapters.store.connect import is_elsewhere
from rotator.errors import RefusedError, StoreError
from tests.contract.records import keyset


@pytest.mark.parametrize(
    ("reached", "server", "client", "elsewhere"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.9", True),
        ("192.0.2.7", "10.0.0.3", "192.0.2.9", True),  # behind an address of its own
        ("2001:db8::7", "2001:db8::7", "2001:db8::9", True),
        ("", None, None, False),  # a Unix socket
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", "::1", False),
        ("127.0.0.1", "172.17.0.2", "172.17.0.1", False),  # a container of this machine, behind a forwarded port
        ("192.0.2.9", "192.0.2.9", "192.0.2.9", False),  # this machine under its own address
    ],
)
def test_time_of_this_machine_is_no_evidence(
    reached: str, server: str | None, client: str | None, elsewhere: bool
) -> None:
    """A server's time counts only when it is another machine's."""
    assert is_elsewhere(reached, server, client) is elsewhere


def test_time_comes_from_the_server(new_postgresql_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As an aware instant that goes on within one process."""
    opened = open_store(new_postgresql_url(), create=True)
    assert opened.trusted_time() is None
    monkeypatch.setattr(connect, "is_elsewhere", lambda *_: True)  # no second machine is at hand
    first, second = opened.trusted_time(), opened.trusted_time()
    opened.close()
    assert first is not None
    assert second is not None
    assert first.utcoffset() is not None
    assert first < second


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_server_that_is_not_there_is_reported_without_the_password() -> None:
    url = f"postgresql://ada:hunter2@127.0.0.1:{free_port()}/rotator"
    with pytest.raises(StoreError, match=r"rotator on 127\.0\.0\.1 cannot be reached.*Check that the server") as caught:
        open_store(url, create=True)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)


def test_database_that_is_not_there_is_reported(new_postgresql_url: Callable[[], str]) -> None:
    url = sa.make_url(new_postgresql_url()).set(database="missing")
    with pytest.raises(StoreError, match=r'database "missing" does not exist'):
        open_store(url.render_as_string(hide_password=False), create=True)


def test_row_locked_too_long_is_reported(
    new_postgresql_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for a replica that hangs."""
    monkeypatch.setattr(connect, "BUSY_TIMEOUT_SECONDS", 0.05)
    url = new_postgresql_url()
    one, other = open_store(url, create=True), open_store(url, create=False)
    with one.begin() as transaction:
        transaction.put_keyset(keyset())
    with one.begin() as transaction:
        transaction.lock_keyset(keyset().name)
        with pytest.raises(StoreError, match="locked by another replica"), other.begin() as waiting:
            waiting.lock_keyset(keyset().name)
    one.close()
    other.close()


def test_broken_connection_is_replaced(new_postgresql_url: Callable[[], str], postgresql: sa.Engine) -> None:
    """A server that dropped its connections costs at most the transaction under way."""
    opened = open_store(new_postgresql_url(), create=True)
    terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rotator'"

    def write_on_a_broken_connection() -> None:
        with opened.begin() as transaction:
            with postgresql.connect() as connection:
                connection.exec_driver_sql(terminate)
            transaction.put_keyset(keyset())

    with pytest.raises(StoreError, match="cannot be reached or used"):
        write_on_a_broken_connection()
    with opened.begin() as transaction:
        assert transaction.keysets() == ()
    opened.close()


def test_a_second_one_is_kept_away_and_told_where_the_first_is(new_postgresql_url: Callable[[], str]) -> None:
    """As long as the first one lives; then the next one may."""
    url = new_postgresql_url()
    with closing(open_store(url, create=True)) as first, closing(open_store(url, create=False)) as second:
        with first.alone() as lost:
            assert lost() == ""
            with pytest.raises(RefusedError, match=r"another rotator works on the PostgreSQL .*since .*process \d+"):
                second.alone().__enter__()
        with second.alone() as lost:
            assert lost() == ""


def test_a_session_that_the_server_ended_is_made_again_or_the_loss_is_told(
    new_postgresql_url: Callable[[], str], postgresql: sa.Engine
) -> None:
    """Whoever came in between stays, and the one before it ends."""
    url = new_postgresql_url()

    def end_sessions() -> None:
        with postgresql.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            )

    with (
        closing(open_store(url, create=True)) as first,
        closing(open_store(url, create=False)) as second,
        first.alone() as lost,
    ):
        end_sessions()
        assert lost() == ""
        with pytest.raises(RefusedError):
            second.alone().__enter__()
        end_sessions()
        with second.alone():
            assert "the server ended the session of this daemon, and another rotator works on" in lost()


def test_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, which the message says how to install."""
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"the extra `postgres` does: \S+ -m pip install 'psycopg\[binary\]>="):
        open_store("postgresql://ada@host/db", create=True)
