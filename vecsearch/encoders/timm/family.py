"""The family of timm models: timm's names, with weights from a file or the model hub."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vecsearch.encoders.base import Concept, Identity
from vecsearch.encoders.timm import ALIASES, TIMM

if TYPE_CHECKING:
    from vecsearch.encoders.base import Tokenize
    from vecsearch.encoders.network import TorchEncoder


class TimmFamily:
    """See `vecsearch.encoders.family.Family`. timm takes every name that no other family takes."""

    backend = TIMM
    help = "a timm model, with a layer if you like: resnet50.layer3, vgg16.fc1"
    weights_flag = "--weights"

    def recognises(self, model: str) -> bool:  # noqa: ARG002 - timm itself refuses unknown names
        """See `Family`."""
        return True

    def weights_file(
        self,
        model: str,  # noqa: ARG002 - a name says nothing about a file
        weights: str | Path | None,
    ) -> str | Path | None:
        """See `Family`."""
        return weights

    def short_names(self, stored: Identity) -> set[str]:
        """See `Family`."""
        aliases = (alias for alias, model in ALIASES.items() if model == stored.model)
        return {replace(stored, model=model).name for model in (stored.model, *aliases)}

    def parse(self, model: str) -> tuple[str, str]:
        """See `Family`."""
        from vecsearch.encoders.timm import names

        return names.parse(model)

    def load(self, model: str, weights: str | Path | None, *, device: str) -> "TorchEncoder":
        """See `Family`."""
        from vecsearch.encoders.timm.model import TimmEncoder

        return TimmEncoder.load(model, weights, device=device)

    def load_stored(
        self, stored: Identity, source: str | Path | None, *, device: str
    ) -> "TorchEncoder":
        """See `Family`."""
        from vecsearch.encoders.timm.model import TimmEncoder

        return TimmEncoder.load_from(stored.model, stored.layer, source, device=device)

    def concepts(self, stored: Identity, source: str | Path | None) -> list[Concept]:
        """See `Family`."""
        from vecsearch.encoders.timm.concepts import read_concepts

        return read_concepts(stored, source)

    def tokenizer(self, stored: Identity) -> "Tokenize | None":  # noqa: ARG002 - none reads text
        """See `Family`."""
        return None
