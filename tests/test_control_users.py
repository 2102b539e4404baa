"""Who may ask for what, through the real socket by processes of other users; and a flood that holds nobody up."""

import os
import subprocess
from pathlib import Path

import pytest

from rotator.control import REQUESTS
from rotator.control_client import ask
from rotator.control_roles import Role
from rotator.report.answers import READING
from tests.other_users import NOT_ROOT, answers_to, flood, is_root
from tests.test_control import Loop, _groups, loop, path, server_of, settings

__all__ = ["loop", "path"]  # fixtures

pytestmark = pytest.mark.skipif(not is_root(), reason=NOT_ROOT)

LEAST = {
    "audit.list": Role.VIEWER,
    "audit.page": Role.VIEWER,
    "audit.verify": Role.VIEWER,
    "clock.accept": Role.ADMIN,
    "config.accept": Role.ADMIN,
    "key.import": Role.ADMIN,
    "key.revoke": Role.ADMIN,
    "keys.list": Role.VIEWER,
    "keys.show": Role.VIEWER,
    "keyset.revoke": Role.ADMIN,
    "keyset.rotate": Role.OPERATOR,
    "keyset.rotate_at_once": Role.ADMIN,
    "keyset.takeover": Role.OPERATOR,
    "plan": Role.VIEWER,
    "revocation.show": Role.OPERATOR,
    "status": Role.VIEWER,
    "token.replace": Role.OPERATOR,
    "token.replacement": Role.OPERATOR,
    "token.revoke": Role.ADMIN,
    "token.show": Role.OPERATOR,
    "token.verify": Role.OPERATOR,
    "tokens.list": Role.VIEWER,
    "tokens.page": Role.VIEWER,
    "workspace.revoke": Role.ADMIN,
}
"""The role that each operation needs."""

GROUPS = {Role.NONE: 701, Role.VIEWER: 700, Role.OPERATOR: 700, Role.ADMIN: 700}
UIDS = (54_321, 65_534)


@pytest.fixture
def open_path(path: Path) -> Path:
    path.parent.chmod(0o711)
    return path


def test_every_operation_has_a_row() -> None:
    assert LEAST.keys() == {*READING, *REQUESTS}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("uid", UIDS)
def test_roles_operations_and_users(
    loop: Loop, open_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role, uid: int
) -> None:
    """Each operation is refused below its role, and at it or above it fails of nothing but its arguments."""
    monkeypatch.setattr("grp.getgrnam", _groups)
    granted = {} if role is Role.NONE else {f"{role.name.lower()}s": ("mine",)}
    with server_of(loop, open_path, settings=settings(open_path, **granted)):
        found = answers_to(open_path, uid, GROUPS[role], [{"command": command} for command in LEAST])
    refused = {command for command, answer in zip(LEAST, found, strict=True) if "may not use" in str(answer)}
    assert refused == {command for command, least in LEAST.items() if role < least}
    with loop.store.read() as snapshot:
        assert snapshot.open_requests() == ()


def test_root_and_the_user_of_the_daemon_may_all(loop: Loop, open_path: Path) -> None:
    with server_of(loop, open_path):
        found = answers_to(open_path, os.geteuid(), 701, [{"command": command} for command in LEAST])
    assert not [answer for answer in found if "may not use" in str(answer)]


def test_an_admin_revokes_amid_a_flood_of_others(loop: Loop, open_path: Path) -> None:
    """Whoever has no role takes no place from those who have; `tests.benchmarks.flood` says how long it takes."""
    with server_of(loop, open_path):
        flooding: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(6):
                question = {"command": ("status", "token.revoke", "nonsense")[number % 3]}
                flooding.append(flood(open_path, UIDS[number % 2], 701, question))
            for _ in range(20):
                assert ask(open_path, "token.revoke", {"jti": "abc"}, "leaked")["finished"]
        finally:
            for process in flooding:
                process.kill()
                process.wait()
    denied = [fields for name, fields in loop.events if name == "control.denied"]
    assert len(denied) < 20, "the log is not flooded"
