"""Worker processes: they decode what strangers made, within limits, and may be killed."""

from vecsearch.imaging.processes.pool import Pool
from vecsearch.imaging.processes.process import Ended, Process

__all__ = ["Ended", "Pool", "Process"]
