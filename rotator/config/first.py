"""The first config: a few answers, made into a file that says what each setting is for and is sound as it stands."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import yaml
from pydantic import TypeAdapter, ValidationError

from rotator.config.kinds import Duration, Name, Profile, Text, Url
from rotator.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAnswers:
    """What only the person knows. All of it is checked."""

    issuer: str
    profiles: tuple[str, ...] = ()
    """Verifiers by name; none: ``max_cache`` is said."""
    max_cache: str = "24h"
    workspace: str | None = None
    """The first one; None: the file shows in a comment how to write one."""
    audience: tuple[str, ...] = ("api",)
    systemd: bool = False
    """The places are those that the unit gives."""


def _checked(kind: Any, value: str) -> str:
    """Return ``value`` if it is of ``kind``; raise :class:`ConfigError` with what would be right."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"]) from None
    return value


Check = Callable[[str], str]

check_issuer: Final[Check] = partial(_checked, Url)
check_profile: Final[Check] = partial(_checked, Profile)
check_max_cache: Final[Check] = partial(_checked, Duration)
check_workspace: Final[Check] = partial(_checked, Name)
check_audience: Final[Check] = partial(_checked, Text)


def render(answers: FirstAnswers) -> str:
    """Return the text of the config."""
    places = _UNIT_PLACES if answers.systemd else _OWN_PLACES
    if answers.profiles:
        consumers = f"{{profiles: {_list(answers.profiles)}}}"
    else:
        consumers = f"{{max_cache: {answers.max_cache}}}"
    return _TEMPLATE.format(
        check="CREDENTIALS_DIRECTORY=/etc/rotator rotator check" if answers.systemd else "rotator --config FILE check",
        issuer=_scalar(answers.issuer),
        consumers=consumers,
        places=places,
        audience=_list(answers.audience),
        workspaces=_workspaces(answers),
    )


def token_path(answers: FirstAnswers, workspace: str) -> str:
    """Return where the token of a workspace goes."""
    return f"{'/run/rotator-tokens' if answers.systemd else 'delivered'}/{workspace}/token"


def _workspaces(answers: FirstAnswers) -> str:
    workspace = answers.workspace or "acme"
    lines = [
        f"{_scalar(workspace)}:",
        "  roles: []                     # the claim `roles`",
        "  permissions: []               # the claim `scope`, such as [metrics:write, logs:write]",
        "  deliver:",
        f'    - file: {{path: {_scalar(token_path(answers, workspace))}, mode: "0640"}}',
    ]
    mark = "  " if answers.workspace else "  # "
    return "\n".join(["workspaces:" if answers.workspace else "workspaces: {}", *(f"{mark}{line}" for line in lines)])


def _list(texts: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_scalar, texts))}]"


def _scalar(text: str) -> str:
    """Return ``text`` as YAML, in quotes only where it would be read as something else without."""
    try:
        same = yaml.safe_load(f"[{text}]") == [text] and yaml.safe_load(f"{text}: 1") == {text: 1}
    except yaml.YAMLError:
        same = False
    return text if same else json.dumps(text, ensure_ascii=False)


_OWN_PLACES: Final = """\
# The key that seals private keys and tokens in the database. Keep a copy of it, apart from the backups.
kek: {file: kek}

# The tree that a web server is to serve at the issuer's URL. The state is kept in rotator-data/ beside this file.
publish: {directory: public}
"""

_UNIT_PLACES: Final = """\
# The places that the unit gives. It hands the key-encryption key, which lies beside this file, to the service as a
# credential. Keep a copy of that key, apart from the backups of the state.
state: {url: "sqlite:////var/lib/rotator/rotator.db"}
publish: {directory: /srv/rotator/public}
control: {socket: /run/rotator/control.sock}
"""

_TEMPLATE: Final = """\
# The config of rotator. After each change: {check}
# Settings that are left out have the defaults that config.example.yaml tells of.

# The claim `iss` of tokens, exactly as verifiers expect it. They find the keys at ISSUER/.well-known/jwks.json.
issuer: {issuer}

# How long the most patient of the verifiers keeps its copy of the key set. A key is published for longer than that
# before it signs. `profiles` knows the defaults of common verifiers, `max_cache` says it: one of the two.
consumers: {consumers}

{places}
# How long a signing key signs, at the longest, and of which kind it is.
keysets:
  default: {{algorithm: ES256, security_period: 90d}}

# A token is replaced within its security_period, and stays valid for the grace_period after that.
defaults: {{security_period: 30d, grace_period: 24h, audience: {audience}}}

# Each workspace has one current token.
{workspaces}
"""
