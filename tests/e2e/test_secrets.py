"""Nothing that the daemon writes holds a secret, but for the places that are made for it."""

import base64
import sys
import threading
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from rotator.adapters.kek import read_ring_file
from rotator.adapters.sealing import AesGcmSealer
from rotator.core.model import KekId
from tests.e2e.world import Site, running, wait_for

LEAK = (
    "import sys; t = sys.stdin.read(); print(t); print(t[10:90], file=sys.stderr); print({t[:40]: t[40:]}); sys.exit(1)"
)


def forms(secret: bytes) -> set[bytes]:
    """Return a secret as it may look in a text."""
    encoded = base64.b64encode(secret)
    return {secret, encoded, encoded.rstrip(b"="), base64.urlsafe_b64encode(secret).rstrip(b"="), secret.hex().encode()}


def private_parts(der: bytes) -> set[bytes]:
    """Return a private key, whole and by its secret number, in every form that is usual."""
    key = load_der_private_key(der, None)
    number = key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr] # ES256 only here
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return forms(der) | forms(number) | {line for line in pem.splitlines() if len(line) > 40}


def test_no_secret_in_logs_audit_status_or_state(tmp_path: Path) -> None:
    """Tokens, private halves and the KEK are looked for in every byte that the daemon wrote.

    A command sink does its worst: it prints the token whole, in parts and quoted, and fails.
    """
    site = Site(tmp_path)
    leak = tmp_path / "leak.py"
    leak.write_text(LEAK)
    site.write_config(workspaces=3, keyset_period="4s", token_period="3s")
    text = site.config.read_text().replace("log: {format: json}", "log: {format: json, level: debug}")
    text += f"  leaky:\n    deliver:\n      - command: {{run: [{sys.executable}, {leak}]}}\n"
    text += "      - file: {path: delivered/leaky/token}\n"
    site.config.write_text(text)
    tokens: set[str] = set()
    private: dict[str, tuple[str, str, bytes]] = {}
    stop = threading.Event()

    def collect() -> None:
        while not stop.wait(0.05):
            tokens.update(path.read_text().strip() for path in site.token_files())

    with running(site, own_interpreter=True) as daemon:
        collector = threading.Thread(target=collect)
        collector.start()
        shown = site.rotator("token", "show", "w0").stdout.strip()
        assert shown.count(".") == 2
        tokens.add(shown)

        def rotated() -> bool:
            for kid, algorithm, kek_id, sealed in site.query(
                "SELECT kid, algorithm, kek_id, sealed FROM signing_keys WHERE sealed IS NOT NULL"
            ):
                private[kid] = (algorithm, kek_id, sealed)
            return len(private) >= 5 and len(tokens) >= 20

        wait_for(rotated, daemon, "five keys and twenty tokens")
        answers = [
            site.rotator(*command, check=False)
            for command in (
                ("status",), ("status", "--json"), ("keys", "list", "--json"), ("tokens", "list", "--json"),
                ("audit", "list", "--json"), ("plan", "--json"), ("check",), ("jwks",),
            )
        ]  # fmt: skip
        process_title = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
        stop.set()
        collector.join()

    ring = read_ring_file(site.state / "kek")
    sealer = AesGcmSealer(ring)
    secrets: dict[bytes, str] = {}
    for kek in ring.keys.values():
        secrets |= dict.fromkeys(forms(kek.reveal()), "the KEK")
    for kid, (algorithm, kek_id, sealed) in private.items():
        der = sealer.open("signing-key", kid, kid, algorithm, KekId(kek_id), sealed).reveal()
        secrets |= dict.fromkeys(private_parts(der), f"the private half of {kid}")
    for token in tokens:
        header, claims, signature = token.split(".")
        secrets |= {part.encode(): "a token" for part in (token, f"{header}.{claims}", claims, signature)}

    allowed = {site.state / "kek", *site.token_files()}
    written = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path not in allowed}
    written |= {" ".join(done.args[2:]): (done.stdout + done.stderr).encode() for done in answers}
    written["process title"] = process_title
    assert len(secrets) > 60
    assert b"delivery.failed" in written[str(daemon.log)]
    found = [
        (place, what) for place, content in written.items() for secret, what in secrets.items() if secret in content
    ]
    assert found == []
