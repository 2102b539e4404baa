"""Settings that every test shares."""

import os

from hypothesis import HealthCheck, Phase, settings

from tests.postgresql import new_postgresql_url, postgresql

__all__ = ["new_postgresql_url", "postgresql"]  # fixtures

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
# Tests that look for a mutant in a hurry: the same few examples each time, and nobody reads the smallest one.
settings.register_profile(
    "mutation",
    parent=settings.get_profile("default"),
    max_examples=30,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
