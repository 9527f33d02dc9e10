"""`python -m vecsearch` is `vecsearch`."""

import atexit
import gc
import os
import signal
import sys
import threading
from contextlib import suppress


def main() -> None:
    """Load the command line and run it; until it is loaded, Ctrl-C ends without a traceback."""
    usual = signal.getsignal(signal.SIGINT)
    # In the background of a script, it is ignored.
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    status = 1

    def leave() -> None:
        # Python ends a thread that still loads an encoder by unwinding its stack, and C++ aborts
        # the process if that passes a destructor (Python < 3.14).
        if any(thread.daemon for thread in threading.enumerate()):
            sys.stdout.flush()
            os._exit(status)

    # What is registered first runs last.
    atexit.register(leave)
    # Imports make a million objects and no garbage: looking for it took a sixth of loading torch.
    gc.set_threshold(10_000)
    from vecsearch import cli

    with suppress(KeyboardInterrupt):
        status = cli.INTERRUPTED
        signal.signal(signal.SIGINT, usual)
        status = cli.main()
    sys.exit(status)


if __name__ == "__main__":
    main()
