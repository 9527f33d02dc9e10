"""The resources that searches share: an open database, and loaded encoders."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vecsearch.postgres import database, migrate, quantized
from vecsearch.postgres.sessions import hosts
from vecsearch.search.indexes.resources import Resources
from vecsearch.search.questions.embedder import Embedders

if TYPE_CHECKING:
    from vecsearch.config import Settings
    from vecsearch.encoders.openvino.cache import Exported


class Store:
    """An open database and the encoders of its collections; a `Library` holds one."""

    def __init__(
        self,
        settings: "Settings",
        url: str,
        session: Mapping[str, str] | None,
        reader_url: str | None = None,
    ) -> None:
        self.settings = settings
        self.url = url
        self.engine = database.open_engine(url, session)
        # Reads with the least rights, and from a standby, if there are any.
        self.reader = self.engine
        if reader_url or hosts.may_read_elsewhere(hosts.parse(url)):
            self.reader = database.open_engine(reader_url or url, session, writes=False)
        self.embedders = Embedders(settings.runtime, settings.max_pixels, self.find_quantized)

    def resources(self, memory: int | None = None, workers: int | None = None) -> Resources:
        """Return the resources that an index build may use; see `Resources`."""
        return Resources(memory, workers, embedded=self.settings.database_url is None)

    def find_quantized(self, precision: str) -> "Exported | None":
        """Return the quantised encoder that a precision names; None if there is none."""
        with migrate.reading_current(self.reader) as connection:
            return quantized.find(connection, precision)
