from datetime import timedelta
from pathlib import Path

import pytest

from rotator.config import Config, KekKind, LogFormat, LogLevel, config_path
from rotator.core.model import Algorithm
from rotator.core.policy import CommandSink, FileSink, RotationWindow
from rotator.core.secret import Secret
from tests.config.writing import ISSUER, Desk

D, H, M = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)

FULL = """\
issuer: https://tokens.example.com
consumers: {max_cache: 12h}
clock_skew: 30s
clock: {max_gap: 10d}
state: {url: "sqlite:///data/my.db"}
publish: {directory: www, base_url: https://cdn.example.com/, lag: 2m, verify_url: http://localhost:8080/}
kek: {file: secrets/kek}
control: {viewers: [monitoring], operators: [platform], admins: [security], socket: my.sock}
log: {format: console, level: debug}
retention: {tokens: 5d, audit: 20d}
keysets:
  default: {algorithm: RS256, security_period: 60d, propagation_period: 30h, grace_period: 50d}
  payments:
    algorithm: EdDSA
    issuer: https://pay.example.com
    rotation_window: {cron: "0 4 * * tue", timezone: Europe/Berlin, duration: 2h}
defaults: {keyset: default, security_period: 20d, grace_period: 2d, audience: all, roles: [reader], permissions: [a:b]}
workspaces:
  acme:
    security_period: 8d
    grace_period: 1d
    audience: [one, two]
    roles: [admin]
    permissions: [metrics:write, logs:write]
    rotation_window: {cron: "0 3 * * sun", timezone: Europe/Berlin, duration: 1h}
    deliver:
      - file: {path: /run/rotator/acme/token, mode: 0600, format: json}
      - command: {run: [/usr/local/bin/push-token, acme], timeout: 10s}
  globex: {keyset: payments, roles: []}
  initech:
"""


@pytest.fixture
def full(desk: Desk) -> Config:
    return desk.load(FULL)


def test_every_setting_arrives(desk: Desk, full: Config) -> None:
    settings = full.settings
    assert f"sqlite:///{desk.directory}/data/my.db" == settings.state_url
    assert desk.directory / "data" == settings.state_directory
    assert desk.directory / "www" == settings.publish_directory
    assert full.policy.base_url == "https://cdn.example.com"
    assert settings.publish_lag == 2 * M
    assert settings.verify_urls == ("http://localhost:8080",)
    assert (KekKind.CONFIG, desk.directory / "secrets/kek", None) == (
        settings.kek.kind,
        settings.kek.file,
        settings.kek.value,
    )
    control = settings.control
    assert (control.viewers, control.operators, control.admins) == (("monitoring",), ("platform",), ("security",))
    assert desk.directory / "my.sock" == control.socket
    assert (settings.log.format, settings.log.level) == (LogFormat.CONSOLE, LogLevel.DEBUG)
    assert (settings.retention.tokens, settings.retention.audit) == (5 * D, 20 * D)
    assert settings.max_cache == 12 * H
    assert 10 * D == settings.clock_max_gap == full.policy.clock_max_gap
    assert timedelta(seconds=30) == full.policy.clock_skew
    assert desk.path == full.path
    assert full.warnings == ()
    assert full.empty_includes == ()
    assert all(line.startswith("ok ") for line in full.arithmetic)


def test_keysets_have_their_periods_and_issuers(full: Config) -> None:
    default, payments = full.policy.keysets.values()
    assert (
        default.algorithm,
        default.security_period,
        default.propagation_period,
        default.grace_period,
    ) == (Algorithm.RS256, 60 * D, 30 * H, 50 * D)
    assert (default.issuer, payments.issuer) == ("https://tokens.example.com", "https://pay.example.com")
    assert RotationWindow("0 4 * * tue", "Europe/Berlin", 2 * H) == payments.rotation_window
    assert payments.propagation_period == 25 * H, "twice 12h and an hour"
    assert 22 * D + timedelta(seconds=30) == payments.grace_period, "the lifetime of globex's token and the skew"


def test_a_workspace_has_its_own_settings(full: Config) -> None:
    acme = full.policy.workspaces[next(iter(full.policy.workspaces))]
    assert (
        acme.security_period,
        acme.grace_period,
        acme.audience,
        acme.roles,
    ) == (8 * D, 1 * D, ("one", "two"), ("admin",))
    assert acme.permissions == ("metrics:write", "logs:write")
    assert RotationWindow("0 3 * * sun", "Europe/Berlin", H) == acme.rotation_window
    assert (
        FileSink("/run/rotator/acme/token", 0o600, "json"),
        CommandSink(("/usr/local/bin/push-token", "acme"), timedelta(seconds=10)),
    ) == acme.sinks


def test_a_workspace_inherits_what_it_leaves_out(full: Config) -> None:
    """An empty list is a value, not an absence."""
    _, globex, initech = full.policy.workspaces.values()
    assert (
        initech.security_period,
        initech.grace_period,
        initech.audience,
        initech.roles,
        initech.permissions,
        initech.rotation_window,
    ) == (20 * D, 2 * D, ("all",), ("reader",), ("a:b",), None)
    assert (globex.keyset, globex.roles) == ("payments", ())


def test_the_issuer_alone_is_a_config(desk: Desk) -> None:
    config = desk.load(ISSUER)
    default = config.policy.keysets[next(iter(config.policy.keysets))]
    assert {"default"} == set(config.policy.keysets)
    assert (
        default.algorithm,
        default.security_period,
        default.propagation_period,
        default.grace_period,
    ) == (Algorithm.ES256, 90 * D, 49 * H, M)
    settings = config.settings
    assert desk.directory / "rotator-data" == settings.state_directory
    assert f"sqlite:///{desk.directory}/rotator-data/rotator.db" == settings.state_url
    assert desk.directory / "rotator-data" / "public" == settings.publish_directory
    assert (config.policy.base_url, settings.verify_urls, settings.publish_lag) == ("https://tokens.example.com", (), M)
    assert (KekKind.STATE, desk.directory / "rotator-data" / "kek", True) == (
        settings.kek.kind,
        settings.kek.file,
        settings.kek.may_create,
    )
    assert desk.directory / "rotator-data" / "control.sock" == settings.control.socket
    assert (settings.log.format, settings.log.level) == (LogFormat.AUTO, LogLevel.INFO)
    assert (
        settings.retention.tokens,
        settings.retention.audit,
        settings.max_cache,
        settings.clock_max_gap,
    ) == (90 * D, 400 * D, 24 * H, 30 * D)


def test_sections_whose_every_line_is_a_comment_are_empty(desk: Desk) -> None:
    first = ["consumers", "clock", "state", "publish", "kek", "control", "log"]
    sections = [*first, "retention", "keysets", "defaults", "workspaces", "include"]
    assert desk.load(ISSUER + "".join(f"{name}:\n" for name in sections)).policy.workspaces == {}


def test_the_issuer_is_kept_to_the_letter(desk: Desk) -> None:
    config = desk.load("issuer: https://Tokens.example.com/a/\nkeysets: {other: }\n")
    assert [keyset.issuer for keyset in config.policy.keysets.values()] == [
        "https://Tokens.example.com/a/",
        "https://Tokens.example.com/a/keysets/other",
    ]


def test_profiles_give_the_longest_cache_of_theirs(desk: Desk) -> None:
    config = desk.load(ISSUER + "consumers: {profiles: [envoy, dotnet, pyjwt]}\n")
    assert config.settings.max_cache == 12 * H


def test_a_workspace_without_an_audience_is_a_warning(desk: Desk) -> None:
    config = desk.load(ISSUER + "defaults:\n  grace_period: 1d\nworkspaces: {acme: , globex: }\n")
    assert [each.audience for each in config.policy.workspaces.values()] == [("api",), ("api",)]
    assert (
        f"{desk.path}:2: defaults: no audience for 2 workspaces (acme, …), so the tokens say aud ['api'];"
        " set defaults.audience to who they are for",
    ) == config.warnings


def test_a_warning_of_the_contract_has_its_place(desk: Desk) -> None:
    config = desk.load(ISSUER + "keysets:\n  default:\n    security_period: 4d\n")
    assert len(config.warnings) == 1
    assert config.warnings[0].startswith(f"{desk.path}:4: keysets.default.security_period: ")
    assert any(line.startswith("warning keysets.default.security_period: ") for line in config.arithmetic)


# -------------------------------------------------------------------------------------------- paths and surroundings


def test_systemd_gives_the_directories(desk: Desk, tmp_path: Path) -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/rotator:/var/lib/other", "RUNTIME_DIRECTORY": "/run/rotator"}
    settings = desk.load(ISSUER, environ).settings
    assert settings.state_url == "sqlite:////var/lib/rotator/rotator.db"
    assert [Path("/var/lib/rotator"), Path("/var/lib/rotator/public"), Path("/var/lib/rotator/kek")] == [
        settings.state_directory,
        settings.publish_directory,
        settings.kek.file,
    ]
    assert Path("/run/rotator/control.sock") == settings.control.socket


def test_relative_paths_are_in_the_state_directory_of_systemd(desk: Desk) -> None:
    content = ISSUER + "state: {url: 'sqlite:///x.db'}\npublish: {directory: ../www}\nkek: {file: k}\n"
    settings = desk.load(content, {"STATE_DIRECTORY": "/var/lib/rotator"}).settings
    assert ("sqlite:////var/lib/rotator/x.db", Path("/var/lib/www"), Path("/var/lib/rotator/k")) == (
        settings.state_url,
        settings.publish_directory,
        settings.kek.file,
    )


def test_the_kek_comes_from_the_first_place_that_has_it(desk: Desk) -> None:
    credentials = desk.directory / "credentials"
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "ROTATOR_KEK": "k1 AAAA"}
    source = desk.load(ISSUER, environ).settings.kek
    assert (KekKind.ENVIRONMENT, None, Secret("k1 AAAA")) == (source.kind, source.file, source.value)
    assert "AAAA" not in repr(source)
    assert not source.may_create
    desk.write("k1 AAAA", "credentials/kek")
    source = desk.load(ISSUER, environ).settings.kek
    assert (KekKind.CREDENTIAL, credentials / "kek", None) == (source.kind, source.file, source.value)
    assert KekKind.CONFIG is desk.load(ISSUER + "kek: {file: /etc/kek}\n", environ).settings.kek.kind


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("postgresql://u:hunter2@db/x?sslmode=require", "postgresql+psycopg://u:hunter2@db/x?sslmode=require"),
        ("postgres://db/x", "postgresql+psycopg://db/x"),
        ("postgresql+psycopg:///x", "postgresql+psycopg:///x"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
    ],
)
def test_the_database_may_be_elsewhere(desk: Desk, url: str, used: str) -> None:
    config = desk.load(f"{ISSUER}state: {{url: '{url}'}}\n")
    assert used == config.settings.state_url
    assert "hunter2" not in repr(config)


def test_the_config_is_named_by_option_environment_or_custom() -> None:
    environ = {"ROTATOR_CONFIG": "/b"}
    assert Path("/a") == config_path(Path("/a"), environ)
    assert Path("/b") == config_path(None, environ)
    assert Path("/etc/rotator/config.yaml") == config_path(None, {"ROTATOR_CONFIG": ""})


def test_the_digest_covers_every_file(desk: Desk) -> None:
    desk.write("workspaces: {acme: {audience: a}}\n", "w.yaml")
    first = desk.load(ISSUER + "include: [w.yaml]\n").digest
    assert first == desk.load().digest
    desk.write("workspaces: {acme: {audience: b}}\n", "w.yaml")
    assert first != desk.load().digest
    assert len(first) == 64
