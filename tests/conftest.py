"""Settings that every test shares."""

import os

from hypothesis import HealthCheck, settings

from tests.postgresql import new_postgresql_url, postgresql

__all__ = ["new_postgresql_url", "postgresql"]  # fixtures

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
