"""A wrapper that keeps secrets out of ``repr``, logs and tracebacks from the moment they exist."""

from typing import Final, Generic, NoReturn, TypeVar

T = TypeVar("T", str, bytes)

MASK: Final = "[secret]"


class Secret(Generic[T]):
    """A token, a KEK or other secret text or bytes. Read it with :meth:`reveal`, at the last moment."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    __hash__ = None  # type: ignore[assignment]  # a secret is no key of a mapping

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")
