"""Errors by who is at fault. Each message says what was found, what was expected, and what to do next."""


class RotatorError(Exception):
    """Anything that this program reports on purpose; shown to the user as one line, without a traceback."""

    exit_code = 1


class ConfigError(RotatorError):
    """The user's config or command line is wrong; the message lists every error found, one per line."""

    exit_code = 2


class RefusedError(RotatorError):
    """What was asked for is understood and not done, for a reason that the message gives."""


class UnknownNameError(RotatorError):
    """What was named is not there, or it does not say which of several is meant."""


class StoreError(RotatorError):
    """The database cannot be used."""


class StoreRuleError(StoreError):
    """A change was refused, and none of it made, because it breaks a rule of the schema."""


class StoreEmptyError(StoreError):
    """The database can be reached, and nothing was ever written to it."""


class StoreDriverError(StoreError):
    """What speaks to the database is not installed."""

    def __init__(self, text: str, step: str) -> None:
        super().__init__(f"{text}: {step}")
        self.step = step


class StoreLostError(StoreError):
    """The database that is open is not the one at its path any more: whoever works on it has to end."""


class PublishError(RotatorError):
    """The published tree cannot be written or read back."""


class DeliveryError(RotatorError):
    """A sink did not take a token."""


class SinkHungError(DeliveryError):
    """A sink said nothing for as long as it may take."""


class KekError(RotatorError):
    """The key-encryption key is missing, malformed, wrong or badly guarded."""


class SealError(RotatorError):
    """A sealed record or a MAC does not belong to its row or to this KEK."""


class WitnessError(RotatorError):
    """The witness file is damaged or was not written by this installation."""


class JournalError(RotatorError):
    """The journal of revocations cannot be written."""


class InvariantError(RotatorError):
    """Our fault: a state that must never be. Nothing was changed."""
