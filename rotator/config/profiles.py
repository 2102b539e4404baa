"""How long verifiers in the field hold a copy of a key set, by their defaults; read in their sources and manuals."""

from datetime import timedelta
from typing import Final

MAX_CACHE: Final[dict[str, timedelta]] = {
    "aws-api-gateway": timedelta(hours=1),
    "confluent": timedelta(hours=24),
    "dotnet": timedelta(hours=12),
    "envoy": timedelta(minutes=10),
    "istio": timedelta(minutes=20),
    "jose": timedelta(minutes=10),
    "jwks-rsa": timedelta(minutes=10),
    "mod_auth_openidc": timedelta(hours=1),
    "nimbus": timedelta(minutes=5),
    "pyjwt": timedelta(minutes=5),
    "smallrye": timedelta(minutes=60),
    "spring": timedelta(minutes=5),
    "step-ca": timedelta(hours=12),
    "tibco": timedelta(hours=24),
}
"""Without what a verifier does when it meets an unknown kid, for some refuse it (Envoy, Istio, step-ca)."""
