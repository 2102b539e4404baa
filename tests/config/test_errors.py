import os
from pathlib import Path

import pytest

from rotator.config import load
from rotator.config.places import SyntaxFaultError
from rotator.config.yaml_source import parse
from rotator.errors import ConfigError
from tests.another_user import as_nobody
from tests.config.writing import ISSUER, NOW, Desk

# Each case: what stands after the first line, which is the issuer, and the error.
SETTINGS = [
    ("keyset: {}\n", "config.yaml:2: keyset: unknown setting; did you mean keysets?"),
    (
        "log: {zzz: 1}\n",
        "config.yaml:2: log.zzz: unknown setting; known here: format, level",
    ),
    (
        "defaults: {securty_period: 1d}\n",
        "config.yaml:2: defaults.securty_period: unknown setting; did you mean security_period?",
    ),
    (
        "workspaces:\n  acme:\n    role: [a]\n",
        "config.yaml:4: workspaces.acme.role: unknown setting; did you mean roles?",
    ),
    (
        "workspaces:\n  acme:\n    deliver:\n      - file:\n          path: /a\n          modes: x\n",
        "config.yaml:7: workspaces.acme.deliver[0].file.modes: unknown setting; did you mean mode?",
    ),
    (
        "clock_skew: 30\n",
        "config.yaml:2: clock_skew: 30 has no unit; write 30s, 30m, 30h or 30d",
    ),
    (
        "defaults: {security_period: 1M}\n",
        "config.yaml:2: defaults.security_period: '1M' is not a span of time; write one such as 90s, 10m, 12h, 30d, 8w,"
        " 1h30m or P30D",
    ),
    (
        "defaults: {grace_period: [1d]}\n",
        "config.yaml:2: defaults.grace_period: expected a span of time such as 90s, 10m, 12h, 30d or 8w, found a list",
    ),
    (
        "publish: {lag: -1s}\n",
        "config.yaml:2: publish.lag: -1s is negative; write a span of time such as 90s, 10m, 12h",
    ),
    ("keysets: {default: {algorithm: es256}}\n", "'es256' is not one of ES256, RS256, EdDSA; did you mean ES256?"),
    ("keysets: {default: {algorithm: 5}}\n", "expected one of ES256, RS256, EdDSA, found the number 5"),
    ("log: {level: loud}\n", "config.yaml:2: log.level: 'loud' is not one of debug, info, warning, error"),
    ("keysets: {'../x': {}}\n", "config.yaml:2: keysets.'../x': '../x' is no name here: up to 63 of a-z"),
    ("keysets: {'a..b': {}}\n", "'a..b' is no name here"),
    ("keysets: {default: {issuer: 'https://a.example'}}\n", "the issuer of this keyset is the top-level issuer"),
    (
        "keysets: {a: {issuer: 'https://a.example'}, b: {issuer: 'https://a.example/'}}\n",
        "keysets.b.issuer: https://a.example/ is the issuer of the keyset a already",
    ),
    ("workspaces:\n  Acme: {}\n", "config.yaml:3: workspaces.Acme: 'Acme' is no name here"),
    (f"workspaces:\n  {'a' * 64}: {{}}\n", "is no name here"),
    (
        "workspaces:\n  no: {}\n",
        "config.yaml:3: workspaces: has the key no, which YAML reads as the boolean false; write",
    ),
    ("workspaces:\n  7: {}\n", "config.yaml:3: workspaces: has the key 7, which YAML reads as the number 7"),
    ("workspaces:\n  ? [a]\n  : {}\n", "has a list or mapping as a key"),
    ("workspaces: {acme: {audience: api, keyset: defualt}}\n", "there is no keyset 'defualt'; did you mean default?"),
    ("defaults: {keyset: x}\n", "config.yaml:2: defaults.keyset: there is no keyset 'x'; there are: default"),
    ("workspaces: {acme: {audience: []}}\n", "workspaces.acme.audience: is an empty list; name at least one"),
    ("workspaces: {acme: {audience: 5}}\n", "workspaces.acme.audience: expected a list, found the number 5"),
    ("defaults: {audience: ''}\n", "defaults.audience[0]: is empty"),
    (
        "defaults: {roles: [on]}\n",
        "defaults.roles[0]: expected text, found the boolean true (YAML reads yes, no, on and",
    ),
    ("defaults: {roles: [1.5]}\n", "expected text, found the number 1.5; write it in quotes"),
    ("defaults: {roles: [{}]}\n", "expected text, found a mapping"),
    ("defaults: {roles: admin}\n", "defaults.roles: expected a list, found the text 'admin'"),
    ("defaults: {permissions: ['a b']}\n", "defaults.permissions[0]: 'a b' cannot be part of the claim `scope`"),
    ('defaults: {roles: ["a\\u0007"]}\n', "holds a character that cannot be printed: 'a\\x07'"),
    ("keysets: 5\n", "config.yaml:2: keysets: expected a mapping, found the number 5"),
    ("state: hello\n", "config.yaml:2: state: expected a mapping of settings, found the text 'hello'"),
    ("state: {url: 'mysql://x'}\n", "state.url: names the database 'mysql'; write sqlite:///rotator.db"),
    ("state: {url: 'sqllite:///x'}\n", "state.url: names the database 'sqllite'; did you mean sqlite?"),
    ("state: {url: 'rotator.db'}\n", "state.url: is not the URL of a database"),
    ("state: {url: 'sqlite:///:memory:'}\n", "state.url: must name a file"),
    ("state: {url: 'sqlite:///'}\n", "state.url: must name a file"),
    ("state: {url: 'sqlite://x'}\n", "state.url: begins with sqlite: in a form that is not taken"),
    ("state: {url: 'sqlite:///x?mode=ro'}\n", "state.url: takes no parameters"),
    ("publish: {directory: ~/www}\n", "publish.directory: '~/www': ~ is not expanded"),
    ("publish: {directory: .}\n", "publish.directory: "),
    ("publish: {directory: w}\nkek: {file: w/kek}\n", "config.yaml:3: kek.file: "),
    ("consumers: {max_cache: 1h, profiles: [envoy]}\n", "consumers: has both max_cache and profiles; keep one of them"),
    (
        "consumers: {profiles: [envoi]}\n",
        "consumers.profiles[0]: 'envoi' is not a verifier known here; did you mean envoy?",
    ),
    ("consumers: {profiles: []}\n", "consumers.profiles: is an empty list; name at least one"),
    ("workspaces: {acme: {deliver: [{}]}}\n", "workspaces.acme.deliver[0]: must have exactly one of file and command"),
    ("workspaces: {acme: {deliver: [{file: }]}}\n", "workspaces.acme.deliver[0]: file has no value"),
    ("workspaces: {acme: {deliver: [{webhook: }]}}\n", "workspaces.acme.deliver[0].webhook: unknown setting"),
    (
        "workspaces: {acme: {deliver: [{file: {mode: '0600'}}]}}\n",
        "workspaces.acme.deliver[0].file.path: is missing; it is: The file; a relative path is beside the config.",
    ),
    ("workspaces: {acme: {deliver: [{command: {run: push}}]}}\n", "deliver[0].command.run: is one text; write a list"),
    ("workspaces: {acme: {deliver: [{command: {run: []}}]}}\n", "deliver[0].command.run: is an empty list"),
    ("workspaces: {acme: {deliver: [{command: {run: [push]}}]}}\n", "the program 'push' must be an absolute path"),
    (
        "workspaces: {acme: {deliver: [{command: {run: [/push, 5]}}]}}\n",
        "command.run[1]: expected text, found the number",
    ),
    ('workspaces: {acme: {deliver: [{command: {run: [/push, "\\0"]}}]}}\n', "command.run[1]: holds a NUL character"),
    *(
        (f"workspaces: {{acme: {{deliver: [{{file: {{path: /a, mode: {mode}}}}}]}}}}\n", said)
        for mode, said in [
            ("640", 'file.mode: 640 is a decimal number; write the mode in octal and in quotes, such as "0640"'),
            ("'4640'", "sets more than permissions"),
            ("'0240'", "does not let the owner read"),
            ("'0644'", "lets everybody on the machine at the token"),
            ("rw", "expected permissions in octal, such as \"0640\", found the text 'rw'"),
        ]
    ),
    *(
        (f"defaults: {{rotation_window: {window}}}\n", f"config.yaml:2: defaults.rotation_window.{said}")
        for window, said in [
            ("{cron: '0 3 * * 0'}", "cron: the weekday '0' is a number, and 0 is Sunday to cron but Monday"),
            ("{cron: 5}", "cron: expected text, found the number 5"),
            (
                "{cron: '0 3 * * sun', timezone: Europe/Berln}",
                "timezone: 'Europe/Berln' is not a time zone; did you mean",
            ),
            ("{cron: '0 3 * * sun', timezone: ../../etc/passwd}", "timezone: '../../etc/passwd' is not a time zone"),
            ("{timezone: UTC}", "cron: is missing"),
        ]
    ),
]


@pytest.mark.parametrize(("content", "said"), SETTINGS)
def test_a_wrong_setting_is_named_with_its_line_and_what_would_be_right(desk: Desk, content: str, said: str) -> None:
    assert said in desk.error(ISSUER + content)


@pytest.mark.parametrize(
    ("issuer", "said"),
    [
        ("http://tokens.example.com", "must begin with https://"),
        ("https://", "is not an absolute https URL"),
        ("tokens.example.com", "is not an absolute https URL"),
        ("ftp://tokens.example.com", "is not an absolute https URL"),
        ("https://a.example/?x=1", "no query and no fragment"),
        ("https://a.example/#x", "no query and no fragment"),
        ("https://u:p@a.example", "no user name or password"),
        ("https://a.example:99999", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://a.example/ü", "characters that a URL cannot have"),
        ("https://a.example/a b", "characters that a URL cannot have"),
    ],
)
def test_an_issuer_is_an_absolute_https_url(desk: Desk, issuer: str, said: str) -> None:
    error = desk.error(f"issuer: '{issuer}'\n")
    assert error.startswith("config.yaml:1: issuer: ")
    assert said in error


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:80"])
def test_an_issuer_on_this_machine_may_do_without_tls(desk: Desk, host: str) -> None:
    desk.load(f"issuer: http://{host}/x\n")


BOMB = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{prior}'] * 20)}]\n" for prior, name in zip("abcdef", "bcdefg", strict=True)
)

FILES = [
    (b"", "config.yaml:1: is empty; it needs at least: issuer: https://tokens.example.com"),
    (b"# nothing\n---\n", "config.yaml:1: is empty"),
    (b"- a\n", "config.yaml:1: expected a mapping of settings at the top, found a list"),
    (b"hello\n", "config.yaml:1: expected a mapping of settings at the top, found the text 'hello'"),
    (b"{}\n", "config.yaml:1: issuer: is missing; it is: The claim iss"),
    (b"issuer: https://a.example\nlog:\n\tlevel: info\n", "config.yaml:3: is indented with a tab"),
    (b"issuer: https://a.example\nlog: [\n", "config.yaml:3: is not YAML: while parsing a flow node"),
    (b"issuer: https://a.example\nissuer: https://b.example\n", "config.yaml:2: issuer: is there twice; keep one"),
    (b"issuer: https://a.example\nlog: {level: info, level: info}\n", "config.yaml:2: log.level: is there twice"),
    (
        b"issuer: https://a.example\nlog: {level: !!python/object:os.system {}}\n",
        "log.level: has the tag !!python/object",
    ),
    (
        b"issuer: https://a.example\nworkspaces: {a: {deliver: [\n  {file: {path: /a},\n   file: {path: /b}}]}}\n",
        "config.yaml:4: workspaces.a.deliver[0].file: is there twice",
    ),
    (b"issuer: !env ISSUER\n", "config.yaml:1: issuer: has the tag !env; the config uses plain YAML without tags"),
    (b"issuer: https://a.example\n---\nissuer: https://b.example\n", "config.yaml:2: begins a second document"),
    (b"issuer: https://a.example\nlog: *x\n", "config.yaml:2: the alias *x names nothing before it"),
    (b"issuer: https://a.example\nlog: &x {level: *x}\n", "the alias *x stands inside of what it names"),
    (b"issuer: https://a.example\nlog: &x\n  ? *x\n", "the alias *x stands inside of what it names"),
    (b"x: &x {}\n? *x\n: 1\n", "has the alias *x as a key"),
    (b"issuer: https://a.example\nlog: " + b"[" * 100_000, "config.yaml:2: is nested more than 50 levels deep"),
    (b"issuer: https://a.example\nlog:" + b" {a:" * 1000 + b"}" * 1000, "is nested more than 50 levels deep"),
    (b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (i, i, i - 1) for i in range(1, 99)), "levels deep, aliases"),
    (BOMB.encode(), "config.yaml:7: has more than 10,000,000 values when its aliases are followed"),
    (
        "issuer: https://ä.example\n".encode("latin-1"),
        "config.yaml:1: is not UTF-8: the byte 0xe4; save the file as UTF-8",
    ),
    ("issuer: https://a.example\n".encode("utf-16"), "is not UTF-8"),
    (b"issuer: https://a.example\n\0\n", "config.yaml:2: holds the control character U+0000"),
    (b"issuer: {{ issuer }}\n", "has a list or mapping as a key; a key is text (a template that was not filled in?)"),
    (b"{issuer: 'https://a.example', log: {{ x }: 1}}\n", "(a template that was not filled in?)"),
    (b"issuer: https://a.example\n\xef\xbb\xbfx: 1\n", "config.yaml:2: "),
    (b"issuer: 'https://a.example\n", "is not YAML"),
    (b"%YAML 9.9\n---\nissuer: x\n", "is not YAML"),
]


def test_the_parser_itself_takes_no_control_characters() -> None:
    """Files are looked through before; this is the second line of defence."""
    with pytest.raises(SyntaxFaultError, match="is not YAML"):
        parse("a: \x01")


@pytest.mark.parametrize(("content", "said"), FILES)
def test_a_broken_file_is_an_error_with_its_line(desk: Desk, content: bytes, said: str) -> None:
    assert any(said in line for line in desk.errors(content))


@pytest.mark.parametrize(
    "content",
    [
        b"issuer: https://a.example\r\nlog:\r\n  level: info\r\n",
        b"\xef\xbb\xbfissuer: https://a.example\n",
        b"--- # one\nissuer: https://a.example\n...\n",
        b"issuer: !!str https://a.example\nlog: !!map {level: info}\n",
        b"defaults: &d {audience: api}\nworkspaces: {a: *d, b: *d}\nissuer: https://a.example\n",
        b"issuer: https://a.example\nworkspaces:\n  a: &a {audience: api, roles: [x]}\n  b: {<<: *a, roles: [y]}\n"
        b"  c: {<<: [*a, {keyset: default}]}\n",
        b"&k issuer: https://a.example\nlog: {level: &l info}\n",
        b"issuer: https://a.example\nworkspaces: {&a acme: {audience: &x api}}\nkeysets: {*x : {}}\n",
        b"issuer: https://a.example\nclock_skew: 0\npublish: {lag: 0s, directory: www/}\n",
        b"issuer: https://a.example\nworkspaces:\n  a: {roles: ['007', 2026-01-01, 12:30, 007], audience: api}\n",
    ],
)
def test_ordinary_yaml_is_taken(desk: Desk, content: bytes) -> None:
    assert desk.load(content).warnings == ()


def test_merged_keys_give_way_to_the_mappings_own(desk: Desk) -> None:
    config = desk.load(
        ISSUER + "workspaces:\n  a: &a {audience: x, roles: [x]}\n"
        "  b: {<<: [*a, {roles: [z], permissions: [p]}], roles: [y]}\n"
    )
    b = list(config.policy.workspaces.values())[1]
    assert (b.audience, b.roles, b.permissions) == (("x",), ("y",), ("p",))


def test_a_merge_of_what_is_no_mapping_is_an_error(desk: Desk) -> None:
    assert "log.<<: unknown setting" in desk.error(ISSUER + "log: {<<: 5}\n")


def test_dates_times_and_leading_zeros_stay_text(desk: Desk) -> None:
    config = desk.load(ISSUER + "workspaces: {a: {audience: x, roles: [2026-01-01, 12:30, 007]}}\n")
    assert next(iter(config.policy.workspaces.values())).roles == ("2026-01-01", "12:30", "007")


def test_every_error_is_told_by_line(desk: Desk) -> None:
    lines = desk.errors("log:\n  level: loud\n  levle: x\nissuer: nope\nclock_skew: 5\nstate: {url: x}\n")
    assert [line.split(" ")[0] for line in lines] == [
        "config.yaml:2:",
        "config.yaml:3:",
        "config.yaml:4:",
        "config.yaml:5:",
    ]


def test_errors_across_settings_are_told_together(desk: Desk) -> None:
    """What one setting alone cannot show is collected just as well."""
    lines = desk.errors(
        ISSUER
        + "state: {url: x}\n"
        + "keysets: {default: {propagation_period: 1h, security_period: 30m}}\n"
        + "workspaces: {acme: {keyset: nope, audience: a}}\n"
    )
    assert [line.split(" ")[1] for line in lines] == [
        "state.url:",
        "keysets.default.propagation_period:",
        "keysets.default.security_period:",
        "workspaces.acme.keyset:",
    ]


def test_a_window_that_does_not_fit_is_told_where_it_was_set(desk: Desk) -> None:
    """Once for all workspaces that inherit it, and at the setting that is there."""
    window = "{cron: '0 3 * * sun', timezone: Europe/Berlin}"
    inherited = (
        f"defaults:\n  audience: a\n  security_period: 7d\n  rotation_window: {window}\nworkspaces: {{a: , b: }}\n"
    )
    assert desk.error(ISSUER + inherited).startswith(
        "config.yaml:4: defaults.security_period: security_period 7d < 7d2h"
    )
    own = f"defaults: {{audience: a, security_period: 7d}}\nworkspaces:\n  a:\n    rotation_window: {window}\n"
    assert desk.error(ISSUER + own).startswith("config.yaml:5: workspaces.a.rotation_window: security_period 7d <")
    assert "the change of clocks" in desk.error()
    assert "set security_period to 8d" in desk.error()
    both = f"defaults: {{audience: a}}\nworkspaces:\n  a:\n    security_period: 1d\n    rotation_window: {window}\n"
    assert desk.error(ISSUER + both).startswith("config.yaml:5: workspaces.a.security_period: security_period 1d <")


def test_a_large_file_with_one_error_names_its_line(desk: Desk) -> None:
    body = "".join(f"  w{number}: {{audience: a}}\n" for number in range(3000))
    assert desk.error(f"{ISSUER}workspaces:\n{body}  last: {{audience: a, rols: []}}\n").startswith(
        "config.yaml:3003: workspaces.last.rols: unknown setting; did you mean roles?"
    )


# --------------------------------------------------------------------------------------------------- files and sinks


def test_what_is_no_file_is_an_error(desk: Desk) -> None:
    for path, said in [
        (desk.directory / "none.yaml", "there is no such file; name it with --config or $ROTATOR_CONFIG"),
        (desk.directory, "is a directory; name the file in it"),
        (Path("/dev/null"), "is not a regular file"),
        (desk.directory / "a\0b", "cannot be read"),
        (desk.path / "x", "cannot be read: Not a directory"),
    ]:
        desk.write(ISSUER)
        with pytest.raises(ConfigError) as caught:
            load(path, {}, now=NOW)
        assert str(caught.value).startswith(f"{path}: {said}")


def test_a_fifo_is_not_waited_for(desk: Desk) -> None:
    os.mkfifo(desk.path)
    assert desk.error() == "config.yaml: is not a regular file"


def test_an_unreadable_file_is_an_error(desk: Desk) -> None:
    path = desk.write(ISSUER + "nonsense: 1\n")
    assert "nonsense" in desk.error()  # what is imported late is imported now: as another user it might not be found
    path.chmod(0)
    with as_nobody(path):
        assert desk.error() == "config.yaml: cannot be read: Permission denied"


def test_a_file_that_everybody_may_write_is_refused(desk: Desk) -> None:
    desk.write(ISSUER).chmod(0o666)
    assert desk.error() == "config.yaml: can be written by everybody on the machine; chmod o-w it"


def sink(path: object, name: str = "acme") -> str:
    return f"  {name}: {{audience: a, deliver: [{{file: {{path: '{path}'}}}}]}}\n"


def test_a_file_sink_stays_out_of_what_is_ours(desk: Desk) -> None:
    for path, what in [
        ("rotator-data/token", "state directory"),
        ("x/../rotator-data/a/token", "state directory"),
        ("www/token", "published directory"),
        ("rotator-data", "state directory"),
    ]:
        said = desk.error(f"{ISSUER}publish: {{directory: www}}\nworkspaces:\n{sink(path)}")
        assert said.startswith("config.yaml:4: workspaces.acme.deliver[0].file.path: ")
        assert f"is in the {what} (" in said


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("kek", "key-encryption key"),
        ("config.yaml", "config"),
        ("more/a.yaml", "included file"),
        ("run/control.sock", "control socket"),
    ],
)
def test_a_file_sink_is_no_file_of_ours(desk: Desk, file: str, what: str) -> None:
    """Wherever it is named: a token would be written over it, and it would be read as what it is no more."""
    (desk.directory / "more").mkdir()
    ours = "kek: {file: kek}\ncontrol: {socket: run/control.sock}\ninclude: [more/*.yaml]\n"
    (desk.directory / "more" / "a.yaml").write_text(f"workspaces:\n{sink(desk.directory / file)}")
    said = desk.error(ISSUER + ours)
    assert "workspaces.acme.deliver[0].file.path: " in said
    assert f"is the {what}, which a token would replace" in said


def test_a_file_sink_that_leads_to_a_file_of_ours_is_a_warning(desk: Desk) -> None:
    (desk.directory / "elsewhere").symlink_to(".")
    config = desk.load(f"{ISSUER}kek: {{file: kek}}\nworkspaces:\n{sink('elsewhere/kek')}")
    assert any(
        "leads to the key-encryption key by a link, and nothing is delivered there" in w for w in config.warnings
    )


def test_a_file_sink_stays_out_of_where_our_own_links_lead(desk: Desk) -> None:
    """The links above the state are its owner's: nobody else turns them."""
    (desk.directory / "disk").mkdir()
    (desk.directory / "rotator-data").symlink_to("disk")
    assert "is in the state directory (" in desk.error(f"{ISSUER}workspaces:\n{sink('disk/token')}")


def test_a_file_sink_is_used_once(desk: Desk) -> None:
    said = desk.error(ISSUER + "workspaces:\n" + sink("real/token") + sink("real/x/../token", "globex"))
    assert said.startswith("config.yaml:4: workspaces.globex.deliver[0].file.path: ")
    assert "is delivered to already, by workspaces.acme.deliver[0].file.path in config.yaml; each needs its own" in said


# ------------------------------------------------------- what others can make true on the disk makes no config invalid


@pytest.mark.parametrize(
    ("link", "target", "said"),
    [
        ("a/token", "elsewhere", "is a symbolic link now, and nothing is delivered through one"),
        ("a/token", "token", "is a symbolic link now, and nothing is delivered through one"),
        ("a", "rotator-data", "leads into the state directory ("),
        ("a", "rotator-data/public", "leads into the published directory ("),
        ("a", "b", "is now, by a link, the file of workspaces.globex.deliver[0].file.path in "),
    ],
)
def test_links_on_the_way_of_a_sink_are_a_warning_at_that_sink(desk: Desk, link: str, target: str, said: str) -> None:
    """Whoever can write to one token directory holds up that sink, at its delivery, and no start or reload."""
    for directory in ("rotator-data/public", "b"):
        (desk.directory / directory).mkdir(parents=True)
    (desk.directory / link).parent.mkdir(exist_ok=True)
    (desk.directory / link).symlink_to(target)
    config = desk.load(ISSUER + "workspaces:\n" + sink("b/token", "globex") + sink("a/token"))
    (warning,) = config.warnings
    assert warning.startswith(f"{desk.path}:4: workspaces.acme.deliver[0].file.path: {desk.directory}/a/token {said}")


def test_the_daemon_does_not_touch_the_path_of_a_sink_to_load_its_config(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there may hang, and a start or a reload with it."""
    touched: list[str] = []

    def watched(path: str) -> bool:
        touched.append(str(path))
        return False

    desk.write(ISSUER + "workspaces:\n" + sink("dead/mount/a/token"))
    monkeypatch.setattr("os.path.islink", watched)
    load(desk.path, {}, now=NOW)
    assert any("dead/mount" in path for path in touched)
    touched.clear()
    load(desk.path, {}, now=NOW, looks_at_sinks=False)
    assert not any("dead/mount" in path for path in touched)


def test_links_that_go_round_in_a_circle_are_no_fault_of_the_config(desk: Desk) -> None:
    """In an included directory they are files that are not there; under the published one they are told there."""
    (desk.directory / "w.yaml").symlink_to("w.yaml")
    (desk.directory / "www").symlink_to("www")
    said = desk.error(ISSUER + "include: [w.yaml]\npublish: {directory: www}\n")
    assert said.startswith("w.yaml: cannot be read: Too many levels of symbolic links")
