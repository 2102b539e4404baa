"""Verifiers that know nothing of us, each with its own cache of each key set.

Where README.md shows the code or the config for a verifier, it is that which runs here, with other places and a cache
in proportion to the periods of the test; each replacement is asserted, so that a change of the README is noticed.
"""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from jwcrypto import jwk, jwt

from tests.interop.site import CACHE_SECONDS, ServedKeyset, free_port, get, wait_until_open
from tests.patience import HANG_SECONDS
from tests.readme import block_with

TOLD_ISSUER: Final = "https://tokens.example.com"
TOLD_URL: Final = f"{TOLD_ISSUER}/.well-known/jwks.json"
NODE: Final = Path(__file__).parent / "node"


class Verifier(Protocol):
    """One implementation, with a cache for each keyset."""

    @property
    def name(self) -> str:
        """Return what it is called in a report."""

    def refusal(self, keyset: str, token: str) -> str:
        """Return why the token is refused; empty when it is accepted."""


def replaced(text: str, places: dict[str, str]) -> str:
    """Replace each key, which must be there, by its value."""
    for told, here in places.items():
        assert told in text, told
        text = text.replace(told, here)
    return text


# --------------------------------------------------------------------------------------------------------------- Python


class PythonVerifier:
    """A function for each keyset that returns the claims of a token, or raises."""

    def __init__(self, name: str, keysets: Sequence[ServedKeyset], make: Callable[[ServedKeyset], Any]) -> None:
        self.name: Final = name
        self._claims_of = {keyset.name: make(keyset) for keyset in keysets}

    def refusal(self, keyset: str, token: str) -> str:
        try:
            assert self._claims_of[keyset](token)["workspace"]
        except Exception as error:  # noqa: BLE001 - whatever a library raises is its refusal
            return f"{type(error).__name__}: {error}"
        return ""


def pyjwt_of_the_readme(keyset: ServedKeyset) -> Any:
    """PyJWT's client: keeps the whole set, fetches it again when a kid is unknown."""
    text = replaced(
        block_with("python", "PyJWKClient"),
        {
            f'"{TOLD_URL}")': f'"{keyset.jwks_url}", lifespan={CACHE_SECONDS})',
            TOLD_ISSUER: keyset.issuer,
            '"ES256"': f'"{keyset.algorithm}"',
        },
    )
    return defined_by(text)


def joserfc_of_the_readme(keyset: ServedKeyset) -> Any:
    """joserfc, which reads the published file each time."""
    text = replaced(
        block_with("python", "KeySet.import_key_set"),
        {
            "/srv/rotator/public/.well-known/jwks.json": str(keyset.file),
            TOLD_ISSUER: keyset.issuer,
            '"ES256"': f'"{keyset.algorithm}"',
        },
    )
    return defined_by(text)


def defined_by(text: str) -> Any:
    """Return what a block of Python calls `claims_of`."""
    names: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), names)  # noqa: S102 - the very code that the README shows
    return names["claims_of"]


def jwcrypto_that_never_asks_again(keyset: ServedKeyset) -> Any:
    """Give jwcrypto, which has no cache, the one that forgives least: blind to unknown kids while it is fresh."""
    fetched_at = float("-inf")
    keys = jwk.JWKSet()

    def claims_of(token: str) -> dict[str, Any]:
        nonlocal fetched_at, keys
        if time.monotonic() - fetched_at > CACHE_SECONDS:
            keys = jwk.JWKSet.from_json(get(keyset.jwks_url).body.decode())
            fetched_at = time.monotonic()
        checked = jwt.JWT(
            jwt=token,
            key=keys,
            algs=[keyset.algorithm],
            check_claims={"iss": keyset.issuer, "aud": "api", "exp": None},
        )
        claims: dict[str, Any] = json.loads(checked.claims)
        return claims

    return claims_of


# ----------------------------------------------------------------------------------------------------------------- Node


def install_node_packages(place: Path) -> None:
    """Install what `node/package-lock.json` pins; no script of a package is run."""
    shutil.copytree(NODE, place)
    subprocess.run(
        [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=place,
        check=True,
        capture_output=True,
        timeout=HANG_SECONDS,
    )


def program(name: str) -> str:
    """Return a program from beside this Python, where the packages of `interop` put theirs, or from the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed; tests/README.md tells what the real verifiers need"
    return found


def jose_of_the_readme(keyset: ServedKeyset) -> str:
    """`createRemoteJWKSet` of jose: keeps the whole set, asks again for an unknown kid once the cool-down is over."""
    milliseconds = CACHE_SECONDS * 1000
    return replaced(
        block_with("js", "createRemoteJWKSet"),
        {
            f"'{TOLD_URL}'))": f"'{keyset.jwks_url}'), {{ cacheMaxAge: {milliseconds}, cooldownDuration: "
            f"{milliseconds} }})",
            TOLD_ISSUER: keyset.issuer,
            "'ES256'": f"'{keyset.algorithm}'",
        },
    )


def jwks_rsa(keyset: ServedKeyset) -> str:
    """jwks-rsa: keeps each key by itself, five at most."""
    return replaced(
        (NODE / "jwks-rsa.mjs").read_text(),
        {
            "JWKS_URL": keyset.jwks_url,
            "ISSUER": keyset.issuer,
            "'ALGORITHM'": f"'{keyset.algorithm}'",
            "CACHE_MILLISECONDS": str(CACHE_SECONDS * 1000),
        },
    )


class NodeVerifier:
    """A process of Node that answers line by line."""

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self.name: Final = name
        self._process = process

    def refusal(self, keyset: str, token: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{keyset} {token}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{self.name} has ended"
        return line.strip()


@contextmanager
def node_verifier(
    name: str, packages: Path, keysets: Sequence[ServedKeyset], module: Callable[[ServedKeyset], str]
) -> Iterator[NodeVerifier]:
    """Run one, with a module for each keyset."""
    place = packages / name
    place.mkdir()
    shutil.copy(NODE / "verify.mjs", place)
    for keyset in keysets:
        (place / f"{keyset.name}.mjs").write_text(module(keyset))
    process = subprocess.Popen(
        [program("node"), "verify.mjs"], cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield NodeVerifier(name, process)
        assert process.stdin is not None
        process.stdin.close()


# ---------------------------------------------------------------------------------------------------------------- Envoy


class EnvoyVerifier:
    """A proxy that lets a request through if its token is good: it fetches in the background, never for a token."""

    name: Final = "envoy"

    def __init__(self, port: int) -> None:
        self._port = port

    def refusal(self, keyset: str, token: str) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/{keyset}/", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=HANG_SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            return f"{error.code}: {error.read().decode(errors='replace')}"


def envoy_config(port: int, jwks_port: int, keysets: Sequence[ServedKeyset]) -> dict[str, Any]:
    """Return a config with the filter of README.md, a provider for each keyset."""
    (jwt_filter,) = yaml.safe_load(block_with("yaml", "envoy.filters.http.jwt_authn"))
    settings = jwt_filter["typed_config"]
    told = json.dumps(settings["providers"].pop("rotator"))
    for keyset in keysets:
        here = {TOLD_URL: keyset.jwks_url, TOLD_ISSUER: keyset.issuer, '"600s"': f'"{CACHE_SECONDS}s"'}
        settings["providers"][keyset.name] = json.loads(replaced(told, here))
    settings["rules"] = [
        {"match": {"prefix": f"/{keyset.name}/"}, "requires": {"provider_name": keyset.name}} for keyset in keysets
    ]
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [
            jwt_filter,
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ]
        },
    }
    listener = {
        "address": _loopback(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    cluster = {
        "name": "tokens",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "tokens",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _loopback(jwks_port)}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _loopback(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextmanager
def envoy(work: Path, jwks_port: int, keysets: Sequence[ServedKeyset]) -> Iterator[EnvoyVerifier]:
    """Run one that fetches from a port of the loopback interface."""
    work.mkdir()
    port = free_port()
    config = work / "envoy.json"
    config.write_text(json.dumps(envoy_config(port, jwks_port, keysets)))
    command = [program("envoy"), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until_open(port, process, work / "log")
            yield EnvoyVerifier(port)
        finally:
            process.terminate()
            process.wait(HANG_SECONDS)


# ------------------------------------------------------------------------------------------------------------------ all


@contextmanager
def every_verifier(work: Path, jwks_port: int, keysets: Sequence[ServedKeyset]) -> Iterator[list[Verifier]]:
    """Run one of each kind, for all keysets."""
    packages = work / "node"
    install_node_packages(packages)
    with ExitStack() as stack:
        yield [
            PythonVerifier("pyjwt", keysets, pyjwt_of_the_readme),
            PythonVerifier("joserfc", keysets, joserfc_of_the_readme),
            PythonVerifier("jwcrypto", keysets, jwcrypto_that_never_asks_again),
            stack.enter_context(node_verifier("jose", packages, keysets, jose_of_the_readme)),
            stack.enter_context(node_verifier("jwks-rsa", packages, keysets, jwks_rsa)),
            stack.enter_context(envoy(work / "envoy", jwks_port, keysets)),
        ]
