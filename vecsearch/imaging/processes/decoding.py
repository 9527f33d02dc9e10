"""The workers that read and decode pictures and videos, which the whole process shares."""

import os

from vecsearch.imaging.processes.pool import Pool

# Some remain for others where a few decode what takes long.
WORKERS = Pool("vecsearch.imaging.worker", max(4, os.cpu_count() or 1))
