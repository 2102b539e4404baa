"""Who may ask the daemon for what: the peer's user and groups, as the kernel and this machine know them."""

import grp
import os
import pwd
import socket
import stat
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from rotator.config.settings import ControlSettings


class Role(IntEnum):
    """What a peer may do; each may do what the ones below may."""

    NONE = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end."""

    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """Return who the kernel says connected (SO_PEERCRED, unix(7))."""
    size = struct.calcsize("3i")
    _pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Peer(uid, gid)


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Knows which role a peer has. Groups are looked up anew for each, for people come and go."""

    settings: ControlSettings

    def role(self, peer: Peer) -> Role:
        """Return the highest role that the peer's user or one of its groups gives."""
        if peer.uid in (0, os.geteuid()):
            return Role.ADMIN
        mine = _groups_of(peer)
        for role, names in self._by_role():
            if mine & {gid for name in names if (gid := _group_id(name)) is not None}:
                return role
        return Role.NONE

    def unknown_groups(self) -> tuple[str, ...]:
        """Return the groups that the config names and this machine does not have."""
        return tuple(name for _, names in self._by_role() for name in names if _group_id(name) is None)

    def closed_directory(self, private: Path | None = None) -> tuple[Path, str] | None:
        """Return the first directory on the way to the socket that a group with a role cannot enter, and that group.

        ``private`` is one that will be closed to others, there yet or not. None: the way is open to each of them.
        """
        groups = [(name, gid) for _, names in self._by_role() for name in names if (gid := _group_id(name)) is not None]
        for directory in reversed(self.settings.socket.parents):
            for name, gid in groups:
                if directory == private or not _can_enter(directory, gid):
                    return directory, name
        return None

    def groups(self, least: Role) -> tuple[str, ...]:
        """Return the groups whose members have the role ``least`` or a higher one."""
        return tuple(name for role, names in self._by_role() for name in names if role >= least)

    def _by_role(self) -> tuple[tuple[Role, tuple[str, ...]], ...]:
        settings = self.settings
        return (Role.ADMIN, settings.admins), (Role.OPERATOR, settings.operators), (Role.VIEWER, settings.viewers)


OPEN_SOCKET: Final = "set control.socket to a path that they can reach, such as /run/rotator/control.sock, and restart"
"""What to do about a directory that is closed to them."""


def closed_to(group: str, directory: Path, path: Path) -> str:
    """Say that ``group`` cannot reach the socket ``path``."""
    return f"members of {group} have a role, and cannot reach {path}: they may not enter {directory}"


def _can_enter(directory: Path, gid: int) -> bool:
    try:
        status = directory.stat()
    except OSError:
        return True  # it is made by whoever starts the daemon, or told of elsewhere
    bit = stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH
    return bool(status.st_mode & bit)


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _groups_of(peer: Peer) -> frozenset[int]:
    try:
        user = pwd.getpwuid(peer.uid)
    except KeyError:
        return frozenset({peer.gid})
    return frozenset({peer.gid, *os.getgrouplist(user.pw_name, user.pw_gid)})


def name_of(uid: int) -> str:
    """Return how the audit names a user: ``NAME(uid)``."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "unknown"
    return f"{name}({uid})"
