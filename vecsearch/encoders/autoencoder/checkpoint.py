"""Checkpoints, from which a training can be resumed: a safetensors file next to its output."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import nn

from vecsearch.encoders.tensors import read_tensors, write_tensors
from vecsearch.errors import InvalidInput

_METADATA_KEY = "vecsearch_checkpoint"


def checkpoint_file(output: Path) -> Path:
    """Return the checkpoint file of a training that writes `output`."""
    return output.with_name(f"{output.name}.checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two epochs.

    Attributes:
        settings: settings that must be equal when resuming; JSON values.
        pictures: SHA-256 of the training pixels, in hex; must be equal when resuming.
        epochs: the planned number of epochs.
        losses: training and validation loss of each finished epoch.
        model: the network's current tensors.
        kept: its tensors after the epoch with the lowest validation loss; empty if there is none.
        adam: the optimizer's state, by position of the parameter, then by Adam's names.

    """

    settings: Mapping[str, Any]
    pictures: str
    epochs: int
    losses: list[tuple[float, float]]
    model: Mapping[str, torch.Tensor]
    kept: Mapping[str, torch.Tensor]
    adam: Mapping[int, Mapping[str, torch.Tensor]]

    def write(self, file: Path) -> None:
        """Write the checkpoint; on failure an existing file is unchanged."""
        notes = {"settings": self.settings, "pictures": self.pictures} | {
            "epochs": self.epochs,
            "losses": self.losses,
        }
        tensors = {f"model/{name}": tensor for name, tensor in self.model.items()}
        tensors |= {f"kept/{name}": tensor for name, tensor in self.kept.items()}
        for position, moments in self.adam.items():
            tensors |= {f"adam/{position}/{name}": value for name, value in moments.items()}
        write_tensors(tensors, file, {_METADATA_KEY: json.dumps(notes)})

    @classmethod
    def read(cls, file: Path) -> "Checkpoint":
        """Read a checkpoint.

        Raises:
            InvalidInput: the file is not a checkpoint, or is damaged.

        """
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "kept": {}, "adam": {}}
        adam: dict[int, dict[str, torch.Tensor]] = {}
        try:
            tensors, metadata = read_tensors(file)
            notes = json.loads(metadata[_METADATA_KEY])
            for name, tensor in tensors.items():
                part, _, rest = name.partition("/")
                parts[part][rest] = tensor
            for name, tensor in parts["adam"].items():
                position, _, moment = name.partition("/")
                adam.setdefault(int(position), {})[moment] = tensor
            return cls(
                settings=notes["settings"],
                pictures=notes["pictures"],
                epochs=notes["epochs"],
                losses=[(training, validation) for training, validation in notes["losses"]],
                model=parts["model"],
                kept=parts["kept"],
                adam=adam,
            )
        except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput(
                f"{file} cannot be read as a checkpoint: {error}. Delete it to start over."
            ) from error

    def restore(self, model: nn.Module, optimizer: torch.optim.Adam) -> None:
        """Restore the state of a model and its optimizer."""
        model.load_state_dict(self.model)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": self.adam, "param_groups": groups})

    def require_settings(self, settings: Mapping[str, Any], file: Path) -> None:
        """Check that the settings equal those of the checkpoint.

        Raises:
            InvalidInput: they differ; the message names the differences.

        """
        differing = [name for name in settings if self.settings.get(name) != settings[name]]
        if differing:
            raise InvalidInput(
                f"{file} was made with {_listed(self.settings, differing)}, not "
                f"{_listed(settings, differing)}. Resume with the same, or delete it to start over."
            )

    def require_pictures(self, pictures: str, file: Path) -> None:
        """Check that the pictures equal those of the checkpoint.

        Raises:
            InvalidInput: their SHA-256 differs.

        """
        if pictures != self.pictures:
            raise InvalidInput(
                f"{file} was made from other pictures. "
                "Resume with the same ones, or delete it to start over."
            )


def _listed(settings: Mapping[str, Any], names: list[str]) -> str:
    return " and ".join(f"{name.replace('_', ' ')} {settings.get(name)}" for name in names)
