"""What is kept of a keyset that left the config: one version writes it, and a later one reads it."""

from dataclasses import replace
from datetime import timedelta

from rotator.core.model import Algorithm
from rotator.core.policy import RotationWindow
from rotator.core.stored_policy import policy_from_json, policy_to_json
from tests.core.worlds import DAY, HOUR, keyset_policy

STORED = (
    '{"name":"default","issuer":"https://tokens.example.com","algorithm":"EdDSA","security_period_seconds":7776000.0'
    ',"propagation_period_seconds":176400.0,"grace_period_seconds":2678400.0,"clock_skew_seconds":60.5}'
)


def test_a_policy_reads_back_but_for_the_window_that_it_rotates_by_no_more() -> None:
    policy = replace(keyset_policy(algorithm=Algorithm.EDDSA), clock_skew=timedelta(seconds=60.5))
    window = RotationWindow("0 3 * * sun", "Europe/Berlin", HOUR)
    assert policy_to_json(replace(policy, rotation_window=window)) == STORED
    assert policy_from_json(STORED) == policy
    assert policy.security_period == 90 * DAY
