"""``python -m rotator``."""

import sys

from rotator.cli import main

if __name__ == "__main__":
    sys.exit(main())
