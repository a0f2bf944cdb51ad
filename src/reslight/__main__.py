"""`python -m reslight` is `reslight`."""

import sys

from reslight.cli import main

sys.exit(main())
