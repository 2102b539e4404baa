"""``python -m rotator.schemas``: write the schema files anew."""

from rotator.schemas import DIRECTORY, write_all

write_all(DIRECTORY)
