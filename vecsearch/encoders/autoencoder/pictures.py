"""Train an autoencoder on folders of pictures, without a database."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecsearch.config import Settings
from vecsearch.errors import InvalidInput
from vecsearch.files import require_writable
from vecsearch.imaging import pictures, scan
from vecsearch.imaging.pictures import Made, Wanted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vecsearch.encoders.autoencoder.training import Training


def train_autoencoder(
    paths: Iterable[str | Path],
    output: Path,
    *,
    settings: Settings | None = None,
    on_unreadable: Callable[[scan.Unreadable], None] = lambda _: None,
    **options: Any,
) -> "Training":
    """Train an encoder on the images under `paths` and write it to `output`.

    Iterate over the result to train; see `vecsearch.encoders.autoencoder.training.Training`.

    Args:
        paths: folders and files.
        output: a `.safetensors` file, usable as `--model`.
        settings: device and pixel limit; None reads the environment.
        on_unreadable: called with each file that is skipped.
        options: fields of `vecsearch.encoders.autoencoder.training.Options`: latent, epochs, …

    Raises:
        InvalidInput: the output cannot be written, or an option has an invalid value.

    """
    settings = settings or Settings.load()
    if output.suffix != ".safetensors":
        raise InvalidInput(f"{output} does not end in .safetensors. Give it that suffix.")
    require_writable(output)
    walk = scan.Walk(paths)
    files = list(walk)
    for item in walk.unreadable:
        on_unreadable(item)

    from vecsearch.encoders.autoencoder import training
    from vecsearch.encoders.autoencoder.model import squashing

    def squashed(size: int) -> "Iterator[NDArray[np.uint8]]":
        wanted = Wanted(preprocessing=squashing(size))
        for file in files:
            made = pictures.make(file.path, wanted, max_pixels=settings.max_pixels)
            if isinstance(made, scan.Unreadable):
                on_unreadable(made)
            elif isinstance(made, Made) and made.inputs is not None:
                yield made.inputs

    sizes = (pictures.size_of(file.path) for file in files)
    sides = (max(size) for size in sizes if size is not None)
    chosen = training.Options(device=settings.device, **options)
    return training.Training(squashed, sides, output, chosen)
