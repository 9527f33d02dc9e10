"""The command line: parse, one API call, print. The only opener, printer and exit.

Data goes to stdout, everything else to stderr. Exit 0: done; 1: it failed; 2: wrong usage.
"""

import io
import pkgutil
import signal
import traceback
from importlib import import_module

import typer

from vecsearch.cli.command import INTERRUPTED, app, say
from vecsearch.errors import fault

__all__ = ["INTERRUPTED", "app", "main"]

# Importing a module declares its commands. --help shows them in this order; the commands of a
# module that is not named here come last.
ORDER = (
    *("ingest", "query", "sql", "collections", "serve", "duplicates", "transfer", "evaluate"),
    *("concepts", "tags"),
    *("demo", "train", "index", "db"),
)
# Click's base class of errors about usage, which Typer does not export.
USAGE: type[typer.BadParameter] = typer.BadParameter.__mro__[2]
HELPERS = {"command", "progress"}
OTHERS = {module.name for module in pkgutil.iter_modules(__path__)} - HELPERS - set(ORDER)

for name in (*ORDER, *sorted(OTHERS)):
    import_module(f"{__name__}.{name}")


def main() -> int:
    """Run the command line; return the exit status.

    SIGTERM and SIGHUP interrupt like Ctrl-C, so that nothing is left running; under nohup, SIGHUP
    is ignored.
    """
    for signal_ in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signal_) is not signal.SIG_IGN:
            signal.signal(signal_, signal.default_int_handler)
    try:
        return app(standalone_mode=False) or 0
    except KeyboardInterrupt:  # before a command has begun
        say("Interrupted.")
        return INTERRUPTED
    except typer.Abort:
        say("Aborted!")
        return 1
    except Exception as error:  # noqa: BLE001 - whatever a terminal might obey in its message
        return _shown(error)


def _blame(error: Exception) -> None:
    """Let an error name the environment variable of its option only if the value came from it."""
    context, parameter = (getattr(error, name, None) for name in ("ctx", "param"))
    if context is not None and parameter is not None:
        source = context.get_parameter_source(parameter.name)
        parameter.show_envvar = source is not None and source.name == "ENVIRONMENT"


def _shown(error: Exception) -> int:
    """Print a wrong usage, or with --debug a traceback; return the exit status."""
    if isinstance(error, USAGE):
        error.message = fault(error.message)
        _blame(error)
        text = io.StringIO()
        error.show(text)
        say(text.getvalue().rstrip("\n"))
        return error.exit_code
    say(traceback.format_exc().rstrip("\n"))
    return 1
