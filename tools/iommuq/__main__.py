# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq`` and ``python -m iommuq``: a Ctrl-C must not meet half an import.

Python takes a moment to import the command line.  Nothing has been begun by then, so
all there is to do is to go, in one line and with the exit code of all interruptions.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn


def _go(_signum: int, _frame: FrameType | None) -> NoReturn:
    # Not an exception: modules may catch exceptions during import.
    os.write(2, b"iommuq: interrupted\n")
    os._exit(130)


def main() -> NoReturn:
    """Import the command line, and run it."""
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM)
        # The parent process may want it ignored.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, _go)
    try:
        from iommuq.cli.completion import PROGRAM, VARIABLE
        from iommuq.cli.main import cli, run
    except Exception as error:  # no memory, no module
        os.write(2, f"iommuq: cannot start: {error!r}\n  (run `tools/bootstrap env`)\n".encode())
        os._exit(3)

    for number, handler in before.items():
        signal.signal(number, handler)
    run(cli, PROGRAM, VARIABLE)


if __name__ == "__main__":
    main()
