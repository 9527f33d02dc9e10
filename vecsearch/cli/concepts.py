"""The command concepts."""

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    app,
    command,
    open_library,
    say,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.vocabulary import DEFAULT_COLLECTION


@command(app, "concepts")
def concepts(
    settings: Settings,
    collection: CollectionOption = DEFAULT_COLLECTION,
    format_: FormatOption = None,
) -> None:
    """List the words that `query --text` takes: the classes that the encoder was trained on.

    A collection from an earlier version gets its list now. A model of open_clip takes any sentence
    instead.
    """
    with open_library(settings) as library:
        asked = library.collection(collection)
        reads_text, words = asked.reads_text(), asked.concepts()
    if reads_text:
        say(
            f"The encoder of collection {collection!r} reads any sentence, so there is no list: "
            f'vecsearch query --collection {collection} --text "a red circle"'
        )
    elif not words:
        say(f"The encoder of collection {collection!r} has no classifier of ImageNet's classes.")
    write_rows(words, format_, columns=["number", "name", "synonyms", "definition"])
