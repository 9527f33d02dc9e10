"""The command line as its own parser sees it; what commands do is tested with a database."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from cli_reference import PAGE, reference
from typer.testing import CliRunner

from vecsearch import __version__, cli
from vecsearch.cli import app
from vecsearch.config import Settings


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return python("-m", "vecsearch", *arguments, **environment)


def python(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def commands(command: Any, *words: str) -> dict[tuple[str, ...], Any]:
    """Return every command and group by the words that lead to it."""
    found = {words: command}
    for name, below in getattr(command, "commands", {}).items():
        found |= commands(below, *words, name)
    return found


def descriptions(printed: str) -> dict[str, str]:
    """Return what a help page says of each of its options, less defaults, variables and ranges."""
    _, _, section = printed.partition("\nOptions:\n")
    section, _, _ = section.partition("\nCommands:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"^  (?=-)", section, flags=re.MULTILINE)[1:]:
        head, _, said = re.sub(r"\n *", "   ", entry.strip()).partition("  ")
        said = re.sub(r"\s+", " ", said)
        said = re.sub(r"\[(env var|default|required|\d+<=|x>=).*\]", "", said).strip()
        found |= dict.fromkeys(re.findall(r"(?<!\S)--?[a-z0-9][a-z-]*", head), said)
    return found


# A command whose thread is still in C++ when it ends.
STILL_LOADING = """
import sys, threading
import torch
from vecsearch import __main__, cli

matrix = torch.ones(200, 200)
began = threading.Event()

def load():
    while True:
        matrix @ matrix
        began.set()

@cli.app.command("load")
def start(fails: bool = False):
    threading.Thread(target=load, daemon=True).start()
    began.wait()
    sys.stdout.write("part")
    if fails:
        raise ValueError

__main__.main()
"""
# A terminal that is closed, under nohup if it is so named; these tests may run under nohup.
HUNG_UP = """
import signal, sys
from vecsearch import __main__, cli

usual = {"nohup": signal.SIG_IGN, "terminal": signal.SIG_DFL}
signal.signal(signal.SIGHUP, usual[sys.argv[1]])

@cli.command.command(cli.app, "nohup")
@cli.command.command(cli.app, "terminal")
def start(settings):
    signal.raise_signal(signal.SIGHUP)

__main__.main()
"""
COMMANDS = commands(typer.main.get_command(app))
COMMAND_IDS = [" ".join(words) or "vecsearch" for words in COMMANDS]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("in", ["ingest", "index"]), ("duplicates --keep l", ["largest"]), ("db sh", ["shell"])],
)
def test_a_shell_completes_commands_and_choices(typed: str, offered: list[str]) -> None:
    program = "import sys; sys.argv = ['vecsearch']; from vecsearch.cli import main; main()"
    words = f"vecsearch {typed}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "_VECSEARCH_COMPLETE": "complete_bash", **asked},
    )
    assert done.stdout.split() == offered, done.stderr


def test_the_library_is_imported_by_its_short_name() -> None:
    import vecsearch
    from vecsearch.library import Library

    assert vecsearch.Library is Library
    with pytest.raises(AttributeError, match="no attribute 'library_'"):
        _ = vecsearch.library_


def test_every_promised_command_is_there() -> None:
    names = "ingest query collections status errors sql demo drop"
    promised = {(name,) for name in names.split()} | {("train", "autoencoder")}
    promised |= {("db", name) for name in "url start stop shell upgrade dump restore".split()}
    assert promised <= set(COMMANDS)


def test_the_reader_of_help_pages_sees_an_option_without_words() -> None:
    page = """Usage: x

Options:
  -c, --collection <str>          Which
                                  one.  [env var: A; default: images]
  --silent <str>                  [env var: B]
  -f, --format <table|json|ndjson|csv|paths>
                                  How.
  -h, --help                      Show.
"""
    assert descriptions(page) == {
        "-c": "Which one.",
        "--collection": "Which one.",
        "--silent": "",
        "-f": "How.",
        "--format": "How.",
        "-h": "Show.",
        "--help": "Show.",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=COMMAND_IDS)
def test_help_says_what_a_command_and_each_of_its_options_are_for(words: tuple[str, ...]) -> None:
    done = run(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"Usage: .*?\n\n  [A-Z].*?\.\n", done.stdout, re.DOTALL), "no description"
    said = descriptions(done.stdout)
    declared = {
        name
        for parameter in COMMANDS[words].params
        if parameter.param_type_name == "option"
        for name in parameter.opts
    }
    assert declared | {"--help", "-h"} == said.keys()
    assert [name for name, text in said.items() if not re.search(r"\w{2}.*\.$", text)] == []


@pytest.mark.parametrize("words", ["", "query", "db start"])
def test_an_unknown_option_is_wrong_usage(words: str) -> None:
    done = run(*words.split(), "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--no-such-option" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("ingest",),
        ("sql",),
        ("train", "autoencoder"),
        ("query", "a.png", "-k", "many"),
        ("query", "a.png", "--format", "yaml"),
        ("query", "--not", "a.png"),
        ("ingest", "photos", "--max-pixels", "0"),
        ("status", "--device", "cpu"),
    ],
    ids=" ".join,
)
def test_arguments_that_do_not_fit_are_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("query a.png --metric euclid", "'euclid' is not one of 'cosine', "),
        ("duplicates --apply foo", "'foo' is not one of 'trash', "),
        ("refresh foo", "'foo' is not one of 'neighbours', "),
        ("sql --format foo x", "'foo' is not one of 'table', "),
    ],
)
def test_a_wrong_choice_is_named_with_the_right_ones(words: str, said: str) -> None:
    done = run(*words.split())
    assert done.returncode == 2
    assert re.search(rf"Invalid value for '[^:]*'( \(.*\))?: {said}", done.stderr)
    assert "Value error" not in done.stderr


def test_the_version_is_printed_alone() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_a_mistake_is_a_sentence_on_stderr_and_exit_1(tmp_path: Path) -> None:
    arguments = ["train", "autoencoder", str(tmp_path), "--output", str(tmp_path / "x.pth")]
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    expected = f"error: {tmp_path}/x.pth does not end in .safetensors. Give it that suffix.\n"
    assert done.stderr == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("collections", "Interrupted.\n"),
        ("ingest photos", "Interrupted.\n"),
    ],
)
def test_ctrl_c_ends_a_command_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    def load(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Settings, "load", load)
    done = CliRunner().invoke(app, words.split())
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", said)


def test_ctrl_c_before_a_command_begins_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "app", interrupt)
    assert (cli.main(), capsys.readouterr().err) == (130, "Interrupted.\n")


@pytest.mark.parametrize(("option", "status"), [("--no-fails", 0), ("--fails", 1)])
def test_a_thread_in_the_background_does_not_change_how_a_command_ends(
    option: str, status: int
) -> None:
    done = python("-c", STILL_LOADING, "load", option)
    assert (done.returncode, done.stdout) == (status, "part")
    assert "terminate called" not in done.stderr


@pytest.mark.parametrize(("how", "status"), [("terminal", 130), ("nohup", 0)])
def test_a_terminal_that_is_closed_interrupts_unless_nohup_was_said(how: str, status: int) -> None:
    assert python("-c", HUNG_UP, how).returncode == status


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_with_debug_a_mistake_shows_its_traceback(tmp_path: Path, how: str) -> None:
    arguments = ["train", "autoencoder", str(tmp_path), "--output", str(tmp_path / "x.pth")]
    done = run(*arguments, "--debug") if how == "flag" else run(*arguments, VECSEARCH_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "InvalidInput" in done.stderr


def test_a_bad_variable_is_reported_before_anything_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    done = run("status", VECSEARCH_MAX_PIXELS="many", VECSEARCH_DATA_DIR=str(folder))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: VECSEARCH_MAX_PIXELS is 'many'.")
    assert not folder.exists()


def test_the_reference_is_what_the_commands_say() -> None:
    assert PAGE.read_text() == reference(), "stale: run python tests/cli_reference.py"


def test_the_reference_has_every_command_and_option() -> None:
    sections = re.split(r"^## ", reference(), flags=re.MULTILINE)
    found = {section.partition("\n")[0]: section for section in sections}
    everywhere = "".join(text for name, text in found.items() if name.startswith("Options of"))
    listed = [name for name in found if not name.startswith(("Options of", "# Command line"))]
    runnable = {words: one for words, one in COMMANDS.items() if not hasattr(one, "commands")}
    assert listed == [" ".join(words) for words in runnable]
    for words, one in runnable.items():
        section = found[" ".join(words)] + everywhere
        for parameter in one.params:
            if parameter.param_type_name == "option":
                assert [name for name in parameter.opts if name not in section] == []


@pytest.mark.parametrize("words", [("query", "-"), ("sql", "-"), ("ingest", "-")])
def test_standard_input_has_a_limit(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecsearch.cli.command.MOST_BYTES", 3_000_000)
    done = CliRunner().invoke(app, words, input=b"x" * 3_000_001)
    assert done.exit_code == 1
    assert "Standard input has more than 3 MB, the limit." in done.stderr
