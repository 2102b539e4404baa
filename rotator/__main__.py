"""``python -m rotator``."""

import sys

from rotator.entry import main

if __name__ == "__main__":
    sys.exit(main())
