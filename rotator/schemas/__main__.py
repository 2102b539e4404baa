"""``python -m rotator.schemas``: write the schema files anew; with the name of one, print that."""

import sys

from rotator.schemas import DIRECTORY, SHAPES, render, write_all

if len(sys.argv) == 1:
    write_all(DIRECTORY)
elif sys.argv[1] in SHAPES:
    sys.stdout.write(render(sys.argv[1]))
else:
    sys.exit(f"there is no schema {sys.argv[1]!r}; there are: {', '.join(sorted(SHAPES))}")
