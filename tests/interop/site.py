"""The real daemon with many keysets that rotate side by side, and nginx in front of what it publishes."""

import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.world import Site
from tests.patience import HANG_SECONDS, wait_until
from tests.readme import block_with

CACHE_SECONDS: Final = 1
"""How long each verifier here keeps its copy of a set."""

MAX_CACHE_SECONDS: Final = 3
"""What the daemon is told of it: with the time that a fetch may take on a machine that is busy."""

WORKSPACES_PER_KEYSET: Final = 2

BY_HAND: Final = "hand"
"""The keyset that no schedule rotates while the test runs."""


@dataclass(frozen=True)
class ServedKeyset:
    """One keyset, as its verifiers know it."""

    name: str
    algorithm: str
    issuer: str
    jwks_url: str
    file: Path


class ServedSite(Site):
    """A site whose published tree is served on a port of the loopback interface."""

    def __init__(self, root: Path, algorithms: dict[str, str]) -> None:
        super().__init__(root)
        self.algorithms = {"default": "ES256", **algorithms}
        self.port: Final = free_port()
        self.base: Final = f"http://127.0.0.1:{self.port}"

    @property
    def public(self) -> Path:
        return self.state / "public"

    def keysets(self) -> list[ServedKeyset]:
        """Return every keyset; the first is `default`, at the place of its own in the tree."""
        return [
            ServedKeyset(name, algorithm, *self._places(name), self.public / "keysets" / name / "jwks.json")
            for name, algorithm in self.algorithms.items()
        ]

    def _places(self, name: str) -> tuple[str, str]:
        if name == "default":
            return self.base, f"{self.base}/.well-known/jwks.json"
        return f"{self.base}/keysets/{name}", f"{self.base}/keysets/{name}/jwks.json"

    def write_rotating_config(self) -> None:
        """Let each keyset but one rotate every six seconds, and each token every three."""
        lines = [
            f"issuer: {self.base}",
            f"consumers: {{max_cache: {MAX_CACHE_SECONDS}s}}",
            "clock_skew: 0s",
            "publish: {lag: 0s}",
            "log: {format: json}",
            "defaults: {security_period: 3s, grace_period: 12s, audience: [api]}",
            "keysets:",
            *(
                f"  {name}: {{algorithm: {algorithm}, security_period: {'10m' if name == BY_HAND else '6s'},"
                f" propagation_period: {MAX_CACHE_SECONDS}s}}"
                for name, algorithm in self.algorithms.items()
            ),
            "workspaces:",
        ]
        for name in self.algorithms:
            for number in range(WORKSPACES_PER_KEYSET):
                workspace = f"{name}-{number}"
                lines.append(f"  {workspace}:")
                lines.append(f"    keyset: {name}")
                lines.append(f"    deliver: [file: {{path: delivered/{workspace}/token}}]")
        self.config.write_text("\n".join(lines) + "\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


NGINX: Final = """\
daemon off;
worker_processes 1;
error_log stderr;
pid {work}/nginx.pid;
{user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
{server}
}}
"""


def nginx_config(site: ServedSite, work: Path) -> str:
    """Return a config around the server block of README.md, in which only address and directory are others."""
    server = block_with("nginx", "server_name tokens.example.com")
    for told, here in {
        "listen 443 ssl;": f"listen 127.0.0.1:{site.port};",
        "root /srv/rotator/public;": f"root {site.public};",
    }.items():
        assert server.count(told) == 1, told
        server = server.replace(told, here)
    # The runner's temporary directories belong to it alone: with root, the worker must stay root to enter them.
    user = "user root;" if os.geteuid() == 0 else ""
    return NGINX.format(work=work, user=user, server=server)


@contextmanager
def served(site: ServedSite) -> Iterator[None]:
    """Serve the site's published tree with nginx."""
    work = site.root / "nginx"
    work.mkdir()
    (work / "nginx.conf").write_text(nginx_config(site, work))
    with (work / "log").open("wb") as log:
        nginx = subprocess.Popen(["nginx", "-p", work, "-c", work / "nginx.conf"], stderr=log)
        try:
            wait_until_open(site.port, nginx, work / "log")
            yield
        finally:
            nginx.terminate()
            nginx.wait(HANG_SECONDS)


def wait_until_open(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, f"something listens on port {port}", still_possible=lambda: server.poll() is None)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()[-3000:]}") from None


@dataclass(frozen=True)
class Answer:
    """What the web server says to one request."""

    status: int
    etag: str
    headers: dict[str, str]
    body: bytes


def get(url: str, *, if_none_match: str = "") -> Answer:
    """Ask once, with a condition if one is given."""
    headers = {"If-None-Match": if_none_match} if if_none_match else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - a URL of this test's own
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Unjudged)
    with opener.open(request, timeout=HANG_SECONDS) as response:
        said = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, said.get("etag", ""), said, response.read())


class _Unjudged(urllib.request.HTTPErrorProcessor):
    """Hands on every answer, 304 and 404 among them."""

    def http_response(self, request, response):  # type: ignore[no-untyped-def] # as in the base class
        return response
