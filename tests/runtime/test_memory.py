import platform
import subprocess
import sys

import pytest

HEAP = """
import ctypes, sys
import torch
from tl_dagster.runtime.memory import keep_freed_memory

class Mallinfo(ctypes.Structure):  # mallinfo(3)
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
    )]

if sys.argv[1] == "kept":
    keep_freed_memory()
torch.ones(2**24)  # 64 MiB, freed at once
ask = ctypes.CDLL(None).mallinfo2
ask.restype = Mallinfo
print(ask().fordblks)  # bytes that are free, and not given back
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_freed_is_kept_for_the_next_tensor():
    def free(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", HEAP, how], check=True, capture_output=True).stdout)

    assert free("kept") >= 2**26 > free("given back")
