"""The model hub: what its client has cached, and whether it can be reached."""

from collections.abc import Iterable

from vecsearch.errors import WeightsUnavailable, first_line

HUB_TIMEOUT_S = 10.0


def cached(repository: str, files: Iterable[str]) -> str | None:
    """Return the path of the first of these files that was downloaded before; None if none was."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, file) for file in files)
    return next((path for path in found if isinstance(path, str)), None)


def require(name: str, hint: str) -> None:
    """Check once that the hub can be reached; its client would retry for most of a minute.

    Args:
        name: the model that is wanted, for messages.
        hint: what else the user can do.

    Raises:
        WeightsUnavailable: it cannot be reached.

    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        raise WeightsUnavailable(
            f"The weights of {name} are not in the cache, and HF_HUB_OFFLINE is set. {hint}"
        )
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # whatever its HTTP library raises
        raise WeightsUnavailable(
            f"The weights of {name} cannot be downloaded: {constants.ENDPOINT} cannot be reached "
            f"({first_line(error)}). {hint}"
        ) from error
