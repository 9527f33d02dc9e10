"""Train an autoencoder: run epochs, keep the best, stop early, resume from a checkpoint."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from vecsearch.encoders.autoencoder import EPOCHS, IMAGE_SIZES, LATENT, PATIENCE, SEED, model
from vecsearch.encoders.autoencoder.checkpoint import Checkpoint, checkpoint_file
from vecsearch.encoders.autoencoder.model import Architecture, Autoencoder, to_input
from vecsearch.encoders.tensors import choose_device
from vecsearch.errors import InvalidInput
from vecsearch.vocabulary import MAX_DIMENSIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALIDATION_SHARE = 0.2
BATCH_SIZE = 16
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch; losses are mean squared errors of pixels from 0 to 1.

    Attributes:
        epoch: number of the epoch, from 1.
        training_loss: mean loss over the epoch, while the network was changing.
        validation_loss: loss on the held-out pictures, after the epoch.
        best: whether every earlier epoch had a higher validation loss.

    """

    epoch: int
    training_loss: float
    validation_loss: float
    best: bool


@dataclass(frozen=True)
class Options:
    """The options of a training.

    Attributes:
        latent: dimensions of an embedding.
        epochs: the largest number of epochs; None uses `EPOCHS` or, when resuming, the number that
            the training was started with.
        image_size: width and height of the network's input in pixels, one of `IMAGE_SIZES`; None
            chooses it by the pictures' sizes.
        patience: stop after this many epochs without a better validation loss; 0 never stops early.
        seed: seed for the split, the order and the initial weights; 0 to 2**63 - 1.
        resume: resume from the checkpoint.
        device: "auto", "cpu", "cuda", …
        on_batch: called with the epoch, from 1, and the number of pictures in the batch.

    """

    latent: int = LATENT
    epochs: int | None = None
    image_size: int | None = None
    patience: int = PATIENCE
    seed: int = SEED
    resume: bool = False
    device: str = "auto"
    on_batch: Callable[[int, int], None] = lambda _epoch, _pictures: None

    def require_sense(self) -> None:
        """Check that all numbers are in range.

        Raises:
            InvalidInput: one is out of range.

        """
        if not 1 <= self.latent <= MAX_DIMENSIONS or (self.epochs is not None and self.epochs < 1):
            raise InvalidInput(
                f"--latent must be 1 to {MAX_DIMENSIONS:,}, and --epochs 1 or more. Change them."
            )
        if self.patience < 0:
            raise InvalidInput("--patience must be 0 or more. Give 0 to never stop early.")
        if not 0 <= self.seed < 2**63:
            raise InvalidInput("--seed must be 0 or more and below 2**63. Give another.")
        if self.image_size not in {None, *IMAGE_SIZES}:
            sizes = ", ".join(map(str, IMAGE_SIZES))
            raise InvalidInput(f"--image-size must be one of {sizes}. Choose one.")


class Training:
    """A training of an autoencoder: iterate once to train; each step yields an epoch.

    A fifth of the pictures is held out for validation; the others are randomly mirrored, as
    augmentation. Pictures are kept in a temporary file, so memory does not grow with their number.
    Each epoch writes a checkpoint next to the output. At the end, the weights of the epoch with the
    lowest validation loss are written to the output, and the checkpoint is deleted. A resumed
    training yields the same epochs as an uninterrupted one and, on a CPU, writes the same bytes.

    Attributes:
        checkpoint: the file from which the training can be resumed.
        epochs: the finished epochs, including those before an interruption.
        planned: the largest number of epochs; set when the first epoch starts.

    """

    def __init__(
        self,
        pictures: Callable[[int], Iterable["NDArray[np.uint8]"]],
        longer_sides: Iterable[int],
        output: Path,
        options: Options,
    ) -> None:
        """Check the arguments, without reading any picture.

        Args:
            pictures: returns the pictures, each squashed to shape (size, size, 3).
            longer_sides: the longer side of each picture, in pixels; sets the image size if the
                options do not.
            output: a file that does not exist yet.
            options: see `Options`.

        Raises:
            InvalidInput: an option is out of range, the output exists, there is no checkpoint to
                resume from, or there is one but `resume` is not set.

        """
        options.require_sense()
        self.checkpoint = checkpoint_file(output)
        if output.exists():
            raise InvalidInput(
                f"{output} exists, and a collection may depend on it. "
                "Choose another --output, or delete it first."
            )
        if options.resume and not self.checkpoint.exists():
            raise InvalidInput(
                f"There is no checkpoint {self.checkpoint} to resume from. Omit --resume."
            )
        if self.checkpoint.exists() and not options.resume:
            raise InvalidInput(
                f"{self.checkpoint} is left from a training that was interrupted. "
                "Continue it with --resume, or delete it to start over."
            )
        self.epochs: list[Epoch] = []
        self._pictures = pictures
        self._longer_sides = longer_sides
        self._output = output
        self._options = options
        self._device = choose_device(options.device)
        self._kept: dict[str, torch.Tensor] = {}

    def __iter__(self) -> Iterator[Epoch]:
        """Yield each finished epoch, beginning with those before an interruption.

        Raises:
            InvalidInput: there are fewer than five pictures, or the checkpoint is of another
                training.

        """
        self._prepare()
        yield from tuple(self.epochs)
        while not self._is_over():
            losses = self._train_once(len(self.epochs) + 1), self._validate()
            self._note(*losses)
            if self.epochs[-1].best:
                self._kept = _copy(self._model)
            self._write_checkpoint()
            yield self.epochs[-1]
        if not self._kept:
            self.checkpoint.unlink()
            raise InvalidInput("No epoch had a finite loss. Train with another --seed.")
        self._model.load_state_dict(self._kept)
        model.save(self._model, self._output)
        self.checkpoint.unlink()

    def reconstructions(self, count: int) -> "tuple[NDArray[np.uint8], NDArray[np.uint8]]":
        """Return held-out pictures and their reconstructions; call it after the last epoch.

        Args:
            count: the largest number of pictures.

        Returns:
            Originals and reconstructions, uint8, each of shape (n, size, size, 3).

        """
        originals = np.asarray(self._stored[self._validation[:count]])
        batch = torch.from_numpy(to_input(originals)).to(self._device)
        self._model.eval()
        with torch.inference_mode():
            drawn = self._model(batch).cpu().numpy()
        return originals, (np.moveaxis(drawn, 1, -1) * 255).round().astype(np.uint8)

    def _prepare(self) -> None:
        options = self._options
        image_size = options.image_size or choose_image_size(self._longer_sides)
        architecture = Architecture.for_size(options.latent, image_size)
        self._settings = {**json.loads(architecture.to_json()), "seed": options.seed}
        found = Checkpoint.read(self.checkpoint) if options.resume else None
        if found is not None:
            found.require_settings(self._settings, self.checkpoint)
        self.planned = options.epochs or (found.epochs if found is not None else EPOCHS)
        if found is not None and self.planned < len(found.losses):
            raise InvalidInput(
                f"{self.checkpoint} already has {len(found.losses)} epochs. "
                f"Give --epochs {len(found.losses)} or more."
            )
        self._stored, self._fingerprint = _store(
            self._pictures(image_size), image_size, self._output.absolute().parent
        )
        if found is not None:
            found.require_pictures(self._fingerprint, self.checkpoint)
        least = round(1 / VALIDATION_SHARE)
        if len(self._stored) < least:
            raise InvalidInput(
                f"{len(self._stored)} pictures are too few to train on. Use at least {least}; "
                "hundreds are better."
            )
        order = np.random.default_rng(options.seed).permutation(len(self._stored))
        held_out = int(len(order) * VALIDATION_SHARE)
        self._validation, self._training = order[:held_out], order[held_out:]
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            self._model = Autoencoder(architecture).to(self._device)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=LEARNING_RATE)
        if found is not None:
            found.restore(self._model, self._optimizer)
            self._kept = dict(found.kept)
            for losses in found.losses:
                self._note(*losses)

    def _note(self, training_loss: float, validation_loss: float) -> None:
        number = len(self.epochs) + 1
        least = min((epoch.validation_loss for epoch in self.epochs if epoch.best), default=inf)
        self.epochs.append(Epoch(number, training_loss, validation_loss, validation_loss < least))

    def _is_over(self) -> bool:
        best = max((epoch.epoch for epoch in self.epochs if epoch.best), default=0)
        done, patience = len(self.epochs), self._options.patience
        return done >= self.planned or 0 < patience <= done - best

    def _train_once(self, epoch: int) -> float:
        # Seeded by epoch, so that a resumed training uses the same random numbers.
        random = np.random.default_rng([self._options.seed, epoch])
        self._model.train()
        total = 0.0
        for rows in _batches(random.permutation(self._training)):
            pixels = self._stored[np.sort(rows)]
            mirrored = random.random(len(rows)) < 0.5  # noqa: PLR2004 - one in two
            pixels[mirrored] = pixels[mirrored, :, ::-1]
            batch = torch.from_numpy(to_input(pixels)).to(self._device)
            self._optimizer.zero_grad()
            loss = nn.functional.mse_loss(self._model(batch), batch)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._optimizer.step()
            total += loss.item() * len(rows)
            self._options.on_batch(epoch, len(rows))
        return total / len(self._training)

    def _validate(self) -> float:
        self._model.eval()
        total = 0.0
        with torch.inference_mode():
            for rows in _batches(self._validation):
                batch = torch.from_numpy(to_input(self._stored[np.sort(rows)])).to(self._device)
                total += nn.functional.mse_loss(self._model(batch), batch).item() * len(rows)
        return total / len(self._validation)

    def _write_checkpoint(self) -> None:
        Checkpoint(
            settings=self._settings,
            pictures=self._fingerprint,
            epochs=self.planned,
            losses=[(epoch.training_loss, epoch.validation_loss) for epoch in self.epochs],
            model=self._model.state_dict(),
            kept=self._kept,
            adam=self._optimizer.state_dict()["state"],
        ).write(self.checkpoint)


def choose_image_size(longer_sides: Iterable[int]) -> int:
    """Return the smallest image size that is at least the median side, or else the largest."""
    middle = median([*longer_sides] or [0])
    return next((size for size in IMAGE_SIZES if size >= middle), IMAGE_SIZES[-1])


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _batches(rows: "NDArray[np.int64]") -> "list[NDArray[np.int64]]":
    return np.array_split(rows, range(BATCH_SIZE, len(rows), BATCH_SIZE))


def _store(
    pictures: Iterable["NDArray[np.uint8]"], size: int, folder: Path
) -> "tuple[NDArray[np.uint8], str]":
    """Return the pictures as one array on disk, shape (n, size, size, 3), and its SHA-256.

    The array is in `folder`, because the system's temporary folder may be small or in memory.
    """
    digest = hashlib.sha256()
    number = 0
    with TemporaryFile(dir=folder) as file:
        for picture in pictures:
            pixels = picture.tobytes()
            digest.update(pixels)
            file.write(pixels)
            number += 1
        file.flush()
        shape = (number, size, size, 3)
        # The mapping stays valid after the file is closed; the disk space is freed with it.
        stored = (
            np.memmap(file, np.uint8, "r", shape=shape) if number else np.empty(shape, np.uint8)
        )
    return stored, digest.hexdigest()
