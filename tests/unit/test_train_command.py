"""The command `train autoencoder`: what it prints, what it says, what it draws."""

from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from vecsearch.cli import app
from vecsearch.cli.progress import TrainingProgress
from vecsearch.encoders.autoencoder import training


@pytest.fixture
def command(photos: Path, tmp_path: Path) -> Callable[..., Result]:
    def run(*options: str) -> Result:
        output = str(tmp_path / "own.safetensors")
        words = ["train", "autoencoder", str(photos), "-o", output, "--image-size", "32"]
        return CliRunner().invoke(app, [*words, "--device", "cpu", "-f", "csv", *options])

    return run


def test_the_command_says_how_to_go_on_when_it_is_interrupted(
    command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in = 1

    def batch(_: TrainingProgress, epoch: int, __: int) -> None:
        if epoch == interrupt_in:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingProgress, "batch", batch)
    done = command("--epochs", "3")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "Interrupted before the first epoch finished, so nothing is kept.\n"
    interrupt_in = 3
    done = command("--epochs", "3")
    assert (done.exit_code, done.stdout) == (130, "")
    assert f"{tmp_path}/own.safetensors.checkpoint keeps" in done.stderr
    assert "run the same command with --resume" in done.stderr
    interrupt_in = 4
    done = command("--epochs", "3", "--resume")
    assert done.exit_code == 0
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["epoch", "1", "2", "3"]
    assert "Stopped early" not in done.stderr


def test_the_command_says_that_it_stopped_early(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LEARNING_RATE", 0.02)  # overshoots
    done = command("--epochs", "40", "--patience", "1")
    assert done.exit_code == 0
    rows = done.stdout.splitlines()[1:]
    assert len(rows) < 40
    assert "Stopped early: the last epoch did not improve" in done.stderr
    assert f"Kept epoch {len(rows) - 1} in " in done.stderr


def test_the_command_draws_the_training_and_checks_that_it_can_before_it_trains(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    done = command("-f", "paths")
    assert (done.exit_code, done.stderr.count("Use another --format")) == (1, 1)
    assert not (tmp_path / "own.safetensors").exists()
    done = command("--plot", str(tmp_path / "sheet.nothing"))
    assert done.exit_code == 1
    assert "unknown image format" in done.stderr
    assert not (tmp_path / "own.safetensors").exists()
    assert command("--epochs", "2", "--plot", str(tmp_path / "sheet.png")).exit_code == 0
    with PIL.Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
