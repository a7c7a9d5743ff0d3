"""What this machine has left: physical cores, free memory, and what this process uses of it.

Reads /proc and /sys where they exist, the Windows API or os.sysconf elsewhere. Knows nothing of models.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_UNLIMITED = 1 << 60
_M_MMAP_THRESHOLD = -3  # of malloc.h


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once; at least 1."""
    try:
        cpus: set[int] = set(os.sched_getaffinity(0))  # type: ignore[attr-defined, unused-ignore]
    except AttributeError:
        cpus = set(range(os.cpu_count() or 1))
    cores: set[str] = set()
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, min(len(cores), _cgroup_cpus()))


def _cgroup_cpus() -> int:
    """Whole CPUs that a container's quota allows; a very large number without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return _UNLIMITED if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return _UNLIMITED


def free_memory() -> int:
    """Bytes that can be allocated without swapping; a container's limit counts."""
    return min(_system_free_memory(), _cgroup_free_memory())


def _system_free_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    if sys.platform == "win32":
        return _windows_free_memory()
    try:  # macOS and others: no count of what is free; take three quarters of what is there
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4
    except (ValueError, OSError, AttributeError):
        return _UNLIMITED


def _windows_free_memory() -> int:
    class MemoryStatus(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ulong), ("load", ctypes.c_ulong),
                    *((name, ctypes.c_ulonglong) for name in (
                        "total", "available", "total_page", "available_page", "total_virtual",
                        "available_virtual", "available_extended")))

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined, unused-ignore]
    return int(status.available)


def _cgroup_free_memory() -> int:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return _UNLIMITED
        used = int((folder / "memory.current").read_text())
        reclaimable = sum(int(line.split()[1]) for line in (folder / "memory.stat").read_text().splitlines()
                          if line.startswith(("inactive_file ", "active_file ")))
        return max(0, int(limit) - used + reclaimable)
    except (OSError, ValueError):
        return _UNLIMITED


def return_large_blocks() -> None:
    """From now on give the system each block of 8 MiB or more as soon as it is freed. By itself glibc keeps
    those of up to 32 MiB once one of their size was freed: https://man7.org/linux/man-pages/man3/mallopt.3.html"""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 8 << 20)


def return_freed_memory() -> None:
    """Give the system back what was freed; glibc keeps dozens of megabytes of what loading a model took."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def resident_memory() -> int:
    """Bytes of RAM that this process uses now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        pass
    if sys.platform == "win32":
        return _windows_resident_memory()
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the peak is the nearest that is portable
    return peak if sys.platform == "darwin" else peak * 1024


def _windows_resident_memory() -> int:
    class Counters(ctypes.Structure):
        _fields_ = (("size", ctypes.c_ulong), ("faults", ctypes.c_ulong),
                    *((name, ctypes.c_size_t) for name in (
                        "peak", "working_set", "peak_paged", "paged", "peak_nonpaged", "nonpaged",
                        "pagefile", "peak_pagefile")))

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    query = kernel32.K32GetProcessMemoryInfo
    query.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong)
    return int(counters.working_set) if query(kernel32.GetCurrentProcess(), ctypes.byref(counters),
                                              counters.size) else 0


def readable_size(num_bytes: float) -> str:
    """'3.1 GiB', '512 MiB', '12 kiB'."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if num_bytes >= size:
            value = num_bytes / size
            return f"{value:.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    return f"{num_bytes / 1024:,.0f} kiB"
