"""The shape of the config file: which settings there are, what each means, and what it is when left out.

What relates one setting to another (inheritance, paths, the time contract) is in ``loading`` and its neighbours.
"""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rotator.config.kinds import (
    Audience,
    Cron,
    Duration,
    DurationOrZero,
    Mode,
    Name,
    PathText,
    Permission,
    Profile,
    Run,
    Text,
    TokenSize,
    Url,
    Urls,
    Zone,
    wrong,
)
from rotator.config.settings import LogFormat, LogLevel
from rotator.core.contract import LARGEST_TOKEN
from rotator.core.model import Algorithm


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _absent_as_empty(value: object) -> object:
    return {} if value is None else value


def _absent_as_no_items(value: object) -> object:
    return [] if value is None else value


_EMPTY: Final = BeforeValidator(_absent_as_empty)  # a section whose every line is a comment is null to YAML
_NO_ITEMS: Final = BeforeValidator(_absent_as_no_items)


class RotationWindowShape(_Section):
    """Openings at which a rotation may happen."""

    cron: Cron = Field(description="Five fields of cron: when it opens. Weekdays by name: '0 3 * * sun'.")
    timezone: Zone = Field(default="UTC", description="The IANA time zone that the cron expression is in.")
    duration: Duration = Field(
        default=timedelta(hours=1), description="How long each opening lasts; rotations spread over it."
    )


class FileShape(_Section):
    """A file that holds the workspace's current token."""

    path: PathText = Field(description="The file; a relative path is beside the config. Replaced whole, never in part.")
    mode: Mode = Field(default=0o640, description="Permissions in octal, in quotes.")
    format: Literal["raw", "json", "env"] = Field(
        default="raw", description="raw: the token; json: an object with its metadata; env: TOKEN=… lines."
    )
    on_removal: Literal["keep", "delete"] = Field(
        default="keep",
        description="When the workspace or this file leaves the config; delete: it goes if it still holds a token that "
        "was written there.",
    )


class CommandShape(_Section):
    """A command that is given the token on its standard input."""

    run: Run = Field(description="The program by absolute path, and its arguments. No shell.")
    timeout: Duration = Field(
        default=timedelta(seconds=30), description="After which it is killed and the delivery has failed."
    )


class SinkShape(_Section):
    """Where a token goes: exactly one of these."""

    file: FileShape | None = Field(default=None, description="A file that holds the current token.")
    command: CommandShape | None = Field(default=None, description="A command with the token on its standard input.")

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, value: object) -> object:
        if isinstance(value, dict) and not value.keys() - {"file", "command"} and len(value) != 1:
            raise wrong("must have exactly one of file and command; write each as an item of its own")
        if isinstance(value, dict) and list(value.values()) == [None] and value.keys() <= {"file", "command"}:
            raise wrong(f"{next(iter(value))} has no value; indent its settings below it")
        return value


class WorkspaceDefaults(_Section):
    """What a workspace has unless it says otherwise."""

    keyset: Name | None = Field(default=None, description="The keyset that signs its tokens; default: default.")
    security_period: Duration | None = Field(
        default=None, description="The longest that a token is current; default: 30d."
    )
    grace_period: Duration | None = Field(
        default=None, description="How long a token stays valid after its successor was issued; default: 24h."
    )
    audience: Audience | None = Field(default=None, description="Who the tokens are for: the claim aud.")
    roles: tuple[Text, ...] | None = Field(default=None, description="The claim roles.")
    permissions: tuple[Permission, ...] | None = Field(
        default=None, description="The claim scope, without spaces in any."
    )
    rotation_window: RotationWindowShape | None = Field(default=None, description="When its token may be replaced.")


class DefaultsShape(WorkspaceDefaults):
    """What a workspace has unless it says otherwise, and what none may exceed."""

    max_token_size: TokenSize = Field(
        default=LARGEST_TOKEN, description="The most characters of a token; servers limit their headers."
    )


class WorkspaceShape(WorkspaceDefaults):
    """A tenant with a token of its own. What is left out comes from ``defaults``."""

    deliver: tuple[SinkShape, ...] = Field(default=(), description="Where its current token goes.")


class KeysetShape(_Section):
    """A set of signing keys under one policy."""

    issuer: Url | None = Field(
        default=None,
        description="The claim iss of its tokens; default: the top-level issuer, with /keysets/NAME after it.",
    )
    algorithm: Algorithm = Field(default=Algorithm.ES256, description="Of new keys; a change of it rotates.")
    security_period: Duration = Field(default=timedelta(days=90), description="The longest that a key signs.")
    propagation_period: Duration | None = Field(
        default=None,
        description="How long a key is published before it signs; default: from consumers, 49h for max_cache 24h.",
    )
    grace_period: Duration | None = Field(
        default=None,
        description="How long a prior key stays published; default: the longest token lifetime plus clock_skew.",
    )
    rotation_window: RotationWindowShape | None = Field(
        default=None, description="When its signing key may be replaced."
    )


class ConsumersShape(_Section):
    """The verifiers of the tokens. Either max_cache or profiles."""

    max_cache: Duration | None = Field(
        default=None, description="The longest that any holds a copy of the key set; default: 24h."
    )
    profiles: Annotated[tuple[Profile, ...], Field(min_length=1)] | None = Field(
        default=None, description="Which verifiers there are; max_cache is then the longest of theirs."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_of_both(cls, value: object) -> object:
        if isinstance(value, dict) and {"max_cache", "profiles"} <= value.keys():
            raise wrong("has both max_cache and profiles; keep one of them")
        return value


class ClockShape(_Section):
    """How far the clock is trusted."""

    max_gap: Duration = Field(
        default=timedelta(days=30), description="A longer time without a run needs evidence that the clock is right."
    )


class StateShape(_Section):
    """Where the state is kept."""

    url: Text | None = Field(
        default=None,
        description="sqlite:///PATH or postgresql://…; default: rotator.db in $STATE_DIRECTORY, else in rotator-data/.",
    )


class PublishShape(_Section):
    """Where the key sets are published."""

    directory: PathText | None = Field(
        default=None, description="The tree that is served; default: public/ beside the state."
    )
    base_url: Url | None = Field(default=None, description="The URL at which the tree is served; default: the issuer.")
    lag: DurationOrZero = Field(
        default=timedelta(seconds=60), description="The longest from writing the tree until it is served everywhere."
    )
    verify_url: Urls = Field(
        default=(), description="URLs of the served tree that are watched, as verifiers see it; one, or a list."
    )


class KekShape(_Section):
    """The key-encryption key."""

    file: PathText | None = Field(
        default=None,
        description="Default: the systemd credential kek, else $ROTATOR_KEK, else kek in the state directory.",
    )


class ControlShape(_Section):
    """Who may talk to the daemon: names of Unix groups."""

    viewers: tuple[Text, ...] = Field(default=(), description="May look: status, plan, lists, audit.")
    operators: tuple[Text, ...] = Field(default=(), description="May also rotate, replace, and see a token.")
    admins: tuple[Text, ...] = Field(
        default=(), description="May do everything; root and the service's user are admins."
    )
    socket: PathText | None = Field(
        default=None, description="Default: control.sock in $RUNTIME_DIRECTORY, else beside the state."
    )


class LogShape(_Section):
    """What is logged to stdout."""

    format: LogFormat = Field(default=LogFormat.AUTO, description="auto: console on a terminal, else json.")
    level: LogLevel = Field(default=LogLevel.INFO, description="The least severe lines that are logged.")


class RetentionShape(_Section):
    """How long what has ended is kept."""

    tokens: Duration = Field(default=timedelta(days=90), description="Records of tokens after their end.")
    audit: Duration = Field(default=timedelta(days=400), description="Audit events.")


class ConfigShape(_Section):
    """The config of rotator."""

    issuer: Url = Field(description="The claim iss of tokens on the keyset default, exactly as it is to appear.")
    consumers: Annotated[ConsumersShape, _EMPTY] = Field(
        default_factory=ConsumersShape, description="The verifiers of the tokens."
    )
    clock_skew: DurationOrZero = Field(
        default=timedelta(seconds=60), description="The most by which the clocks of verifiers and issuer differ."
    )
    clock: Annotated[ClockShape, _EMPTY] = Field(
        default_factory=ClockShape, description="How far the clock is trusted."
    )
    state: Annotated[StateShape, _EMPTY] = Field(default_factory=StateShape, description="Where the state is kept.")
    publish: Annotated[PublishShape, _EMPTY] = Field(
        default_factory=PublishShape, description="Where the key sets are published."
    )
    kek: Annotated[KekShape, _EMPTY] = Field(default_factory=KekShape, description="The key-encryption key.")
    control: Annotated[ControlShape, _EMPTY] = Field(
        default_factory=ControlShape, description="Who may talk to the daemon."
    )
    log: Annotated[LogShape, _EMPTY] = Field(default_factory=LogShape, description="What is logged to stdout.")
    retention: Annotated[RetentionShape, _EMPTY] = Field(
        default_factory=RetentionShape, description="How long what ended is kept."
    )
    keysets: Annotated[dict[Name, Annotated[KeysetShape, _EMPTY]], _EMPTY] = Field(
        default_factory=dict, description="Keysets by name; `default` exists always."
    )
    defaults: Annotated[DefaultsShape, _EMPTY] = Field(
        default_factory=DefaultsShape, description="What every workspace has unless it says otherwise."
    )
    workspaces: Annotated[dict[Name, Annotated[WorkspaceShape, _EMPTY]], _EMPTY] = Field(
        default_factory=dict, description="Workspaces by id: up to 63 of a-z, 0-9, '.', '_', '-'."
    )
    include: Annotated[tuple[PathText, ...], _NO_ITEMS] = Field(
        default=(), description="Patterns of files beside the config that hold more `workspaces:`, in YAML or JSON."
    )


class IncludedShape(_Section):
    """An included file: workspaces and nothing else."""

    workspaces: Annotated[dict[Name, Annotated[WorkspaceShape, _EMPTY]], _EMPTY] = Field(
        default_factory=dict, description="Workspaces by id, as in the config itself, but without commands."
    )


def document_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the config file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ConfigShape.model_json_schema()}
