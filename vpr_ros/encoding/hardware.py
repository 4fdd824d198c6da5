"""
The hardware: usable cores, the processor's instruction sets, GPU name and TensorRT version.

Read from the operating system and the drivers, any of which may be missing.
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
"""Flags of x86 and Arm processors with bfloat16 arithmetic."""
_VNNI = frozenset({'avx512_vnni', 'avx_vnni', 'amx_int8'})
"""Flags of x86 processors that accumulate int8 products in 32 bits."""


def cores() -> int:
    """
    Return how many physical cores this process may use, within its container's quota.

    A container sees all cores of its host, but a thread for each would only wait for the others.
    """
    allowed = os.sched_getaffinity(0)
    physical = {_read(_CPUS / f'cpu{cpu}/topology/thread_siblings_list') or str(cpu)
                for cpu in allowed}
    return max(1, min(len(physical), quota(_read(_QUOTA), len(physical))))


def quota(line: str, limit: int) -> int:
    """
    Return the whole cores that a line of the cgroup's cpu.max grants, at most `limit`.

    '150000 100000' grants 150000 microseconds of CPU time in every 100000: one and a half cores,
    rounded up to two. A line without two numbers ('max 100000') sets no quota.
    """
    numbers = [int(part) for part in line.split() if part.isdigit()]
    return min(limit, -(-numbers[0] // numbers[1])) if len(numbers) == 2 and numbers[1] else limit


def flags() -> frozenset[str]:
    """Return the processor's feature flags; empty where /proc/cpuinfo lists none."""
    text = _read(Path('/proc/cpuinfo'))
    match = re.search(r'^(?:flags|Features)\s*:(.*)$', text, re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def computes_bf16() -> bool:
    """Return whether the processor has bfloat16 arithmetic, faster than float32."""
    return bool(flags() & _BFLOAT16)


def int8_saturates() -> bool:
    """
    Return whether sums of int8 products saturate in 16 bits, which gives wrong results.

    They do on x86 processors without VNNI, unless slower instructions are requested.
    """
    return platform.machine() in ('x86_64', 'AMD64') and not flags() & _VNNI


def processor() -> str:
    """Return the processor's model name, or else its architecture."""
    match = re.search(r'^model name\s*:\s*(.*)$', _read(Path('/proc/cpuinfo')), re.MULTILINE)
    return match[1] if match else platform.machine() or UNKNOWN


def gpu_name() -> str:
    """Return the name and compute capability of the first GPU; 'unknown' without the driver."""
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
    """Return TensorRT's version number, such as '101300'; 'unknown' if not installed."""
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
