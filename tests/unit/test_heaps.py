"""The heaps of a process that serves."""

import platform
import subprocess
import sys

import pytest

# Threads that all hold memory at once, each in a heap of its own if it may.
COUNT = """
import ctypes, threading
{first}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(9)
def hold():
    libc.malloc(1000)
    barrier.wait()
    barrier.wait()
for _ in range(8):
    threading.Thread(target=hold).start()
barrier.wait()
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out)
libc.fclose(out)
barrier.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no such heaps in other C libraries")
@pytest.mark.parametrize("first", ["", "from vecsearch.web import serving; serving.share_heaps()"])
def test_threads_share_heaps(first: str) -> None:
    told = subprocess.check_output([sys.executable, "-c", COUNT.format(first=first)], text=True)
    assert (told.count("<heap nr=") <= 2) is bool(first)
