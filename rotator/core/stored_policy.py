"""The stored form of a keyset's policy: what a keyset ends by after it left the config."""

import json
from datetime import timedelta

from rotator.core.model import Algorithm, KeysetName
from rotator.core.policy import KeysetPolicy


def policy_to_json(policy: KeysetPolicy) -> str:
    """Return what an ending keyset needs to know; the rotation window is left out, for it rotates no more by one."""
    return json.dumps(
        {
            "name": policy.name,
            "issuer": policy.issuer,
            "algorithm": policy.algorithm,
            "security_period_seconds": policy.security_period.total_seconds(),
            "propagation_period_seconds": policy.propagation_period.total_seconds(),
            "grace_period_seconds": policy.grace_period.total_seconds(),
            "clock_skew_seconds": policy.clock_skew.total_seconds(),
        },
        separators=(",", ":"),
    )


def policy_from_json(text: str) -> KeysetPolicy:
    """Return the policy that :func:`policy_to_json` stored."""
    stored = json.loads(text)
    return KeysetPolicy(
        name=KeysetName(stored["name"]),
        issuer=stored["issuer"],
        algorithm=Algorithm(stored["algorithm"]),
        security_period=timedelta(seconds=stored["security_period_seconds"]),
        propagation_period=timedelta(seconds=stored["propagation_period_seconds"]),
        grace_period=timedelta(seconds=stored["grace_period_seconds"]),
        clock_skew=timedelta(seconds=stored["clock_skew_seconds"]),
    )
