"""`python -m vecsearch` is `vecsearch`."""

import signal


def main() -> None:
    """Load the command line and run it; until it is loaded, Ctrl-C ends without a traceback."""
    usual = signal.getsignal(signal.SIGINT)
    # In the background of a script, it is ignored.
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vecsearch import cli

    signal.signal(signal.SIGINT, usual)
    cli.main()


if __name__ == "__main__":
    main()
