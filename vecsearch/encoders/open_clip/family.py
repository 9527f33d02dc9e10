"""The family of open_clip's models, which read pictures and sentences."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vecsearch.encoders.base import POOLED, Concept, Identity
from vecsearch.encoders.open_clip import CONFIG, OPEN_CLIP, PREFIX, tokens

if TYPE_CHECKING:
    from vecsearch.encoders.base import Tokenize
    from vecsearch.encoders.network import TorchEncoder


class OpenClipFamily:
    """See `vecsearch.encoders.family.Family`."""

    backend = OPEN_CLIP
    help = f"a model of open_clip, which reads sentences, too: {PREFIX}ViT-B-32/laion2b_s34b_b79k"
    weights_flag = "--weights"

    def recognises(self, model: str) -> bool:
        """See `Family`."""
        return model.startswith(PREFIX)

    def weights_file(
        self,
        model: str,  # noqa: ARG002 - a name says nothing about a file
        weights: str | Path | None,
    ) -> str | Path | None:
        """See `Family`."""
        return weights

    def short_names(self, stored: Identity) -> set[str]:
        """See `Family`."""
        return {stored.name}

    def parse(self, model: str) -> tuple[str, str]:
        """See `Family`."""
        tokens.require_extra()
        from vecsearch.encoders.open_clip import names

        return names.parse(model).name, POOLED

    def load(self, model: str, weights: str | Path | None, *, device: str) -> "TorchEncoder":
        """See `Family`."""
        tokens.require_extra()
        from vecsearch.encoders.open_clip.model import OpenClipEncoder

        return OpenClipEncoder.load(model, weights, device=device)

    def load_stored(
        self, stored: Identity, source: str | Path | None, *, device: str
    ) -> "TorchEncoder":
        """See `Family`."""
        tokens.require_extra()
        from vecsearch.encoders.open_clip.model import OpenClipEncoder

        return OpenClipEncoder.load_stored(stored, source, device=device)

    def concepts(
        self,
        stored: Identity,  # noqa: ARG002 - it has no classifier
        source: str | Path | None,  # noqa: ARG002 - likewise
    ) -> list[Concept]:
        """See `Family`."""
        return []

    def tokenizer(self, stored: Identity) -> "Tokenize | None":
        """See `Family`."""
        text_cfg = stored.preprocessing[CONFIG]["text_cfg"]
        context = text_cfg.get("context_length", tokens.CONTEXT)
        return partial(tokens.tokenize, name=stored.name, context=context)
