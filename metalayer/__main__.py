"""`python -m metalayer`, and `torchrun -m metalayer`."""

import sys

from metalayer.cli import main

sys.exit(main())
