"""What an interrupted training goes on from: one safetensors file beside its output."""

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
    """Return where the checkpoint of the training that writes `output` is."""
    return output.with_name(f"{output.name}.checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """A training between two epochs.

    Attributes:
        settings: what must be the same to go on; JSON values.
        pictures: SHA-256 of the pixels trained on, in hex; they must be the same, too.
        epochs: how many were planned.
        losses: training and validation loss of each epoch that is done.
        model: the network's tensors now.
        kept: its tensors after the epoch with the least validation loss, if there is one.
        adam: the optimizer's state; by the parameter's position, then by Adam's own names.

    """

    settings: Mapping[str, Any]
    pictures: str
    epochs: int
    losses: list[tuple[float, float]]
    model: Mapping[str, torch.Tensor]
    kept: Mapping[str, torch.Tensor]
    adam: Mapping[int, Mapping[str, torch.Tensor]]

    def write(self, file: Path) -> None:
        """Write it, whole or not at all."""
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
        """Read what `write` wrote.

        Raises:
            InvalidInput: the file is no checkpoint, or is damaged.

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
                f"{file} cannot be read as a checkpoint: {error}. Delete it to begin anew."
            ) from error

    def restore(self, model: nn.Module, optimizer: torch.optim.Adam) -> None:
        """Put a model and its optimizer where they were."""
        model.load_state_dict(self.model)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": self.adam, "param_groups": groups})

    def require_settings(self, settings: Mapping[str, Any], file: Path) -> None:
        """Refuse to go on with other settings.

        Raises:
            InvalidInput: they differ; the message says in what.

        """
        differing = [name for name in settings if self.settings.get(name) != settings[name]]
        if differing:
            raise InvalidInput(
                f"{file} was made with {_listed(self.settings, differing)}, not "
                f"{_listed(settings, differing)}. Resume with the same, or delete it to begin anew."
            )

    def require_pictures(self, pictures: str, file: Path) -> None:
        """Refuse to go on with other pictures.

        Raises:
            InvalidInput: their SHA-256 differs.

        """
        if pictures != self.pictures:
            raise InvalidInput(
                f"{file} was made from other pictures than these. "
                "Resume with the same, or delete it to begin anew."
            )


def _listed(settings: Mapping[str, Any], names: list[str]) -> str:
    return " and ".join(f"{name.replace('_', ' ')} {settings.get(name)}" for name in names)
