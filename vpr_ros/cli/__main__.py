"""`python -m vpr_ros.cli` is `vpr`."""

import sys

from vpr_ros.cli import main

if __name__ == '__main__':
    sys.exit(main())
