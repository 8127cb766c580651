"""`python -m mobileface`."""

import sys

from mobileface.cli import main

if __name__ == "__main__":
    sys.exit(main())
