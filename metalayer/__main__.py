"""`python -m metalayer`, and `torchrun -m metalayer`."""

import sys
from pathlib import Path

# `python -m` searches the current folder first, where a file may have the name of any module.
_HERE = Path(__file__).resolve().parents[1]
if not sys.flags.safe_path and sys.path and Path(sys.path[0]).resolve() != _HERE:
    del sys.path[0]

from metalayer.cli import main  # noqa: E402

sys.exit(main())
