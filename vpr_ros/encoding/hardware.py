"""
The machine: cores that may be used, what its processor can, and the names of GPU and TensorRT.

Asked of the system alone, since none of it may be there; nothing here runs a model.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
import platform
import re

UNKNOWN = 'unknown'
_CPUS = Path('/sys/devices/system/cpu')
_QUOTA = Path('/sys/fs/cgroup/cpu.max')
_BFLOAT16 = frozenset({'amx_bf16', 'avx512_bf16', 'bf16'})
"""Flags of processors that multiply bfloat16, of Intel and AMD, and of Arm."""
_BYTES = frozenset({'avx512_vnni', 'avx_vnni', 'amx_int8'})
"""Flags of x86 processors that multiply bytes and add the products up in 32 bits."""


def cores() -> int:
    """
    Return how many cores this process may use: no hyper-threads, no more than its quota.

    A container sees all cores of its host; one thread for each of those would only queue up.
    """
    allowed = os.sched_getaffinity(0)
    physical = {_read(_CPUS / f'cpu{cpu}/topology/thread_siblings_list') or str(cpu)
                for cpu in allowed}
    return max(1, min(len(physical), quota(_read(_QUOTA), len(physical))))


def quota(line: str, most: int) -> int:
    """
    Return the cores that a line of cgroup's cpu.max grants, at most `most`.

    Such as '150000 100000': microseconds of work in each so many, of all cores together.
    """
    numbers = [int(part) for part in line.split() if part.isdigit()]
    return min(most, -(-numbers[0] // numbers[1])) if len(numbers) == 2 and numbers[1] else most


def flags() -> frozenset[str]:
    """Return what the processor says it can; empty where the system does not tell."""
    text = _read(Path('/proc/cpuinfo'))
    found = re.search(r'^(?:flags|Features)\s*:(.*)$', text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def computes_bf16() -> bool:
    """Tell whether the processor multiplies bfloat16, which is then faster than float32."""
    return bool(flags() & _BFLOAT16)


def int8_saturates() -> bool:
    """
    Tell whether what 8 bits multiply is added up in 16 bits first, and cut off there.

    By an x86 processor without VNNI, unless it is asked for a slower way.
    """
    return platform.machine() in ('x86_64', 'AMD64') and not flags() & _BYTES


def processor() -> str:
    """Return the processor's name."""
    found = re.search(r'^model name\s*:\s*(.*)$', _read(Path('/proc/cpuinfo')), re.MULTILINE)
    return found[1] if found else platform.machine() or UNKNOWN


def gpu_name() -> str:
    """Return the name and compute capability of the first GPU; 'unknown' without CUDA's driver."""
    try:
        cuda = ctypes.CDLL('libcuda.so.1')
        name = ctypes.create_string_buffer(256)
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        failed = (cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0)
                  or cuda.cuDeviceGetName(name, len(name), device)
                  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
                  or cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
                  or cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device))
    except (OSError, AttributeError):
        return UNKNOWN
    if failed:
        return UNKNOWN
    return f'{name.value.decode(errors="replace")} {major.value}.{minor.value}'


def tensorrt_version() -> str:
    """Return the number of TensorRT's version, such as '101300'; 'unknown' without it."""
    for suffix in ('.so.11', '.so.10', '.so.9', '.so.8', '.so'):
        try:
            return str(ctypes.CDLL(f'libnvinfer{suffix}').getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return UNKNOWN


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8', errors='replace').strip()
    except OSError:
        return ''
