"""The interface of an encoder family; `vecsearch.encoders.registry` lists the families."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vecsearch.encoders.base import Concept, Identity

if TYPE_CHECKING:
    from vecsearch.encoders.base import Tokenize
    from vecsearch.encoders.network import TorchEncoder


class Family(Protocol):
    """A family of encoders: how they are named and loaded.

    The module that declares a family is imported without torch; only `parse`, `load` and
    `load_stored` may import it.
    """

    @property
    def backend(self) -> str:
        """The family's name, as identities have it."""

    @property
    def help(self) -> str:
        """What a --model value of the family is: one clause of help text."""

    @property
    def weights_flag(self) -> str:
        """The flag that names a file of the family's weights: --model or --weights."""

    def recognises(self, model: str) -> bool:
        """Return whether a --model value belongs to the family, judging by its form."""

    def weights_file(self, model: str, weights: str | Path | None) -> str | Path | None:
        """Return the file that --model and --weights name; None if they name none.

        Raises:
            InvalidInput: they contradict each other.

        """

    def short_names(self, stored: Identity) -> set[str]:
        """Return those names of a stored model and layer that are known without torch."""

    def parse(self, model: str) -> tuple[str, str]:
        """Return the model and the layer that a --model value means.

        Raises:
            UnknownModel: there is no such model.

        """

    def load(self, model: str, weights: str | Path | None, *, device: str) -> "TorchEncoder":
        """Load what --model and --weights name; see `vecsearch.encoders.registry.load`."""

    def load_stored(
        self, stored: Identity, source: str | Path | None, *, device: str
    ) -> "TorchEncoder":
        """Load a stored model from `source`; None downloads it, if the family can."""

    def concepts(self, stored: Identity, source: str | Path | None) -> list[Concept]:
        """Return the words in a stored model's space; see `load_stored` for `source`."""

    def tokenizer(self, stored: Identity) -> "Tokenize | None":
        """Return what prepares texts for a stored model's text tower; None if it has no such tower.

        The function needs no torch. It raises `InvalidInput` if a text is longer than the model
        reads, and `EncoderError` if a package is missing.
        """
