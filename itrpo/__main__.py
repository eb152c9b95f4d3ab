"""`python -m itrpo`: the `itrpo` command."""

import sys

from itrpo.cli import main

sys.exit(main())
