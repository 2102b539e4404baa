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
"""How long it uses a copy when no unknown kid makes it fetch another: see :data:`REFETCHES_AFTER`."""

REFETCHES_AFTER: Final[dict[str, timedelta]] = {
    "aws-api-gateway": timedelta(0),
    "dotnet": timedelta(minutes=5),
    "jose": timedelta(seconds=30),
    "jwks-rsa": timedelta(0),
    "mod_auth_openidc": timedelta(0),
    "nimbus": timedelta(seconds=30),
    "pyjwt": timedelta(0),
    "smallrye": timedelta(minutes=30),
    "spring": timedelta(seconds=30),
}
"""How long after its last fetch a verifier that meets an unknown kid fetches the set again, by its defaults.

Those that are not here wait for their copy to end (Envoy, Istio, step-ca), or do not say that they fetch again
(Confluent, TIBCO).
"""
