"""Where an export cannot serve: torch goes on, and the user is told."""

import logging

from vecsearch.encoders.base import Identity
from vecsearch.errors import EncoderError

logger = logging.getLogger(__name__)


def go_on_with_torch(identity: Identity, reason: str, *, insist: bool) -> None:
    """Tell the user that an export is not used.

    Args:
        identity: of the encoder.
        reason: what is said of the export.
        insist: the user has named the engine.

    Raises:
        EncoderError: the user insists.

    """
    if insist:
        raise EncoderError(
            f"The export of {identity.name} to OpenVINO {reason}. Leave --engine out."
        )
    # With no logging set up, Python prints it to stderr as it is.
    logger.warning("The export of %s to OpenVINO %s. torch embeds, slower.", identity.name, reason)
