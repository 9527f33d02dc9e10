"""The family of autoencoders trained by vecsearch; --model names an autoencoder's file."""

from pathlib import Path
from typing import TYPE_CHECKING

from vecsearch.encoders.autoencoder import AUTOENCODER
from vecsearch.encoders.base import LATENT, Concept, Identity
from vecsearch.errors import InvalidInput, UnknownModel

if TYPE_CHECKING:
    from vecsearch.encoders.base import Tokenize
    from vecsearch.encoders.network import TorchEncoder


class AutoencoderFamily:
    """See `vecsearch.encoders.family.Family`."""

    backend = AUTOENCODER
    help = "a file made by `train autoencoder`"
    weights_flag = "--model"

    def recognises(self, model: str) -> bool:
        """See `Family`."""
        return _is_file_name(model) or model.partition(".")[0] == AUTOENCODER

    def weights_file(self, model: str, weights: str | Path | None) -> str | Path | None:
        """See `Family`."""
        if not _is_file_name(model):
            return weights
        if weights is not None:
            raise InvalidInput(
                f"{model} holds its own weights. Leave --weights out, or name a timm model."
            )
        return model

    def short_names(self, stored: Identity) -> set[str]:
        """See `Family`."""
        return {stored.name}

    def parse(self, model: str) -> tuple[str, str]:
        """See `Family`."""
        if _is_file_name(model) or model == AUTOENCODER:
            return AUTOENCODER, LATENT
        raise _not_a_file()

    def load(self, model: str, weights: str | Path | None, *, device: str) -> "TorchEncoder":
        """See `Family`."""
        file = self.weights_file(model, weights)
        if not _is_file_name(model) or file is None:
            raise _not_a_file()
        from vecsearch.encoders.autoencoder.model import AutoencoderEncoder

        return AutoencoderEncoder.load(file, device=device)

    def load_stored(
        self,
        stored: Identity,  # noqa: ARG002 - the file says everything
        source: str | Path | None,
        *,
        device: str,
    ) -> "TorchEncoder":
        """See `Family`."""
        if source is None:
            raise _not_a_file()
        from vecsearch.encoders.autoencoder.model import AutoencoderEncoder

        return AutoencoderEncoder.load(source, device=device)

    def concepts(
        self,
        stored: Identity,  # noqa: ARG002 - it has no classifier
        source: str | Path | None,  # noqa: ARG002 - likewise
    ) -> list[Concept]:
        """See `Family`."""
        return []

    def tokenizer(self, stored: Identity) -> "Tokenize | None":  # noqa: ARG002 - none reads text
        """See `Family`."""
        return None


def _is_file_name(model: str) -> bool:
    return model.endswith(".safetensors") or model.startswith(("/", "./", "../", "~"))


def _not_a_file() -> UnknownModel:
    return UnknownModel(
        "An autoencoder is a file. Train one with vecsearch train autoencoder FOLDER, "
        "then name it: --model FILE.safetensors"
    )
