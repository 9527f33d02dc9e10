"""CLIP's tokenizer without torch, which open_clip's own module imports.

The vocabulary is open_clip's file. Merging pairs of letters is left to Hugging Face's tokenizers.
"""

import gzip
import html
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecsearch.errors import EncoderError, InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
# The vocabulary: letters, letters that end a word, merged pairs, and the text's start and end.
WORDS, LETTERS = 49_408, 256
START, END = WORDS - 2, WORDS - 1
CONTEXT = 77
# Endings of English verbs, words, single digits, and runs of anything else but spaces.
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+)"


def require_extra() -> None:
    """Check that the extra clip is installed.

    Raises:
        EncoderError: it is not.

    """
    for package in ("open_clip", "tokenizers", "ftfy"):
        if importlib.util.find_spec(package) is None:
            raise EncoderError(
                f"Models of open_clip need the package {package}, which is not installed. "
                "Install it: pip install 'vecsearch[clip]'"
            )


def require_own(name: str, text_cfg: Mapping[str, Any]) -> None:
    """Check that a model reads the tokens that `tokenize` makes.

    Args:
        name: the model's.
        text_cfg: the part of open_clip's config that is about texts.

    Raises:
        EncoderError: it needs another tokenizer.

    """
    others = ("hf_model_name", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")
    if any(text_cfg.get(key) for key in others) or text_cfg.get("vocab_size", WORDS) != WORDS:
        raise EncoderError(
            f"{name} reads texts by a tokenizer of the model hub, and vecsearch knows only CLIP's "
            "own. Name a model that uses it, such as open_clip:ViT-B-32/laion2b_s34b_b79k."
        )


def tokenize(texts: Sequence[str], *, name: str, context: int) -> "NDArray[np.int64]":
    """Return the tokens of texts, shape (n, context), as open_clip makes them.

    Args:
        texts: any sentences.
        name: the model's, for messages.
        context: the number of tokens that the model reads, the first and the last included.

    Raises:
        InvalidInput: a text has more tokens; open_clip would cut it.
        EncoderError: the extra clip is not installed.

    """
    require_extra()
    import ftfy
    import numpy as np

    tokens = np.zeros((len(texts), context), np.int64)
    for row, text in zip(tokens, texts, strict=True):
        clean = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()
        ids = _tokenizer().encode(clean).ids
        if len(ids) > context - 2:
            raise InvalidInput(
                f"The text is too long: {name} reads {context - 2} tokens, which are words or "
                f"parts of words, and it has {len(ids)}. Shorten it."
            )
        row[: len(ids) + 2] = [START, *ids, END]
    return tokens


@cache
def _tokenizer() -> "Tokenizer":
    """Return the tokenizer, without the first and the last token."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    spec = importlib.util.find_spec("open_clip")
    [folder] = (spec.submodule_search_locations if spec else None) or ["."]
    lines = gzip.decompress((Path(folder) / VOCABULARY).read_bytes()).decode().split("\n")
    # The first line is a comment, and the file holds more pairs than CLIP uses.
    pairs = [tuple(line.split()) for line in lines[1 : START - 2 * LETTERS + 1]]
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, pairs)]
    tokenizer = Tokenizer(
        BPE(
            {word: number for number, word in enumerate(words)},
            [(first, second) for first, second in pairs],
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.pre_tokenizer = Sequence(
        [
            Split(Regex(PATTERN), "removed", invert=True),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer
