"""`python -m reslight` is `reslight`."""

import sys

if not sys.flags.safe_path:
    # Python puts the current folder first. As for the script `reslight`, a random.py in it must not hide a module of Python's.
    sys.path.append(sys.path.pop(0))

from reslight.cli.main import main

sys.exit(main())
