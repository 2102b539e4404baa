"""Finds the key or token that a person means: by kid or jti, or the beginning of it, the same in every command."""

from collections.abc import Iterable
from typing import Final

from rotator.core.model import Jti, SigningKey
from rotator.errors import UnknownNameError
from rotator.ports import Snapshot, TokenRow

SHORTEST_BEGINNING: Final = 4
"""Characters of a kid that may stand for it, if it is the only one that begins so."""

SHORTEST_OF_TOKEN: Final = 6
"""Characters of a jti that may stand for it, likewise."""

NAMED_AT_MOST: Final = 5

_MORE: Final = ("\N{HORIZONTAL ELLIPSIS}", "..")
"""How pages end a kid that they shorten; whoever copies it from there copies this as well."""


def key_named(keys: Iterable[SigningKey], wanted: str, *, where: str = "") -> SigningKey:
    """Return the one of ``keys`` that ``wanted`` names; raise :class:`UnknownNameError` if it is not exactly one.

    A kid in full always does, however short it is and whatever others begin with it. ``where`` tells what
    ``keys`` are, if they are not all that there are.
    """
    keys = tuple(keys)
    beginning = beginning_of(wanted)
    named = [key for key in keys if key.kid == wanted]
    if not named:
        if len(beginning) < SHORTEST_BEGINNING:
            raise UnknownNameError(
                f"{wanted!r} names no key: give at least {SHORTEST_BEGINNING} characters of the kid; "
                "`rotator keys list` shows them"
            )
        named = [key for key in keys if key.kid.startswith(beginning)]
    if not named:
        raise UnknownNameError(f"there is no key {wanted!r}{where}; `rotator keys list` names them")
    if len(named) > 1:
        kids = ", ".join(key.kid for key in named[:NAMED_AT_MOST])
        raise UnknownNameError(f"{len(named)} keys begin with {beginning!r}: {kids}; write more of the one you mean")
    return named[0]


def token_named(snapshot: Snapshot, wanted: str) -> TokenRow:
    """Return the token that ``wanted`` names; raise :class:`UnknownNameError` if it is not exactly one.

    A jti in full always does.
    """
    row = snapshot.token(Jti(wanted))
    if row is not None:
        return row
    beginning = beginning_of(wanted)
    unknown = f"there is no token {wanted!r}; `rotator tokens list --all` names them"
    if len(beginning) < SHORTEST_OF_TOKEN:
        raise UnknownNameError(f"{unknown}: give at least {SHORTEST_OF_TOKEN} characters of the jti")
    found = snapshot.jtis_beginning(beginning, NAMED_AT_MOST + 1)
    if len(found) > 1:
        jtis = ", ".join(found[:NAMED_AT_MOST]) + (", and others" if len(found) > NAMED_AT_MOST else "")
        raise UnknownNameError(f"several tokens begin with {beginning!r}: {jtis}; write more of the one you mean")
    row = snapshot.token(found[0]) if found else None
    if row is None:
        raise UnknownNameError(unknown)
    return row


def beginning_of(wanted: str) -> str:
    """Return ``wanted`` without what a page puts where it leaves the rest of a kid out."""
    for more in _MORE:
        wanted = wanted.removesuffix(more)
    return wanted
