"""When an export cannot be used: torch embeds, and a warning says so."""

import logging

from vecsearch.encoders.base import Identity
from vecsearch.errors import EncoderError

logger = logging.getLogger(__name__)


def go_on_with_torch(identity: Identity, reason: str, *, insist: bool) -> None:
    """Warn that torch embeds instead of the export, or fail if the user named the engine.

    Args:
        identity: the encoder.
        reason: why the export is not used, as the end of "The export of … to OpenVINO …".
        insist: whether the user named the engine.

    Raises:
        EncoderError: insist is true.

    """
    if insist:
        raise EncoderError(
            f"The export of {identity.name} to OpenVINO {reason}. Leave --engine out."
        )
    # Python prints warnings to stderr where logging is not configured.
    logger.warning("The export of %s to OpenVINO %s. torch embeds, slower.", identity.name, reason)
