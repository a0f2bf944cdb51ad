"""`python -m reslight` is `reslight`."""

import sys

from reslight.cli.main import main

sys.exit(main())
