"""What a run computes on: its name, and the mixed precision that it computes natively."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")
NATIVE = {"avx512_bf16", "amx_bf16"}  # a CPU with neither emulates bf16, slower than float32


def precision(device: torch.device, capability: tuple[int, int] | None = None) -> str:
    """`"bf16"` where the device computes it natively, `"fp16"` on an older GPU such as a T4, else `"no"`.

    `torch.cuda.is_bf16_supported()` also says yes to a T4 (7.5), which only emulates it and crawls: so it is not asked.
    """
    if device.type == "cuda":
        return "bf16" if (capability or torch.cuda.get_device_capability(device)) >= (8, 0) else "fp16"
    return "bf16" if device.type == "cpu" and NATIVE & set(_cpu_info("flags").split()) else "no"


def device_name(device: torch.device) -> str:
    """`NVIDIA T4` or `AMD EPYC, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = _cpu_info("model name") or platform.processor() or platform.machine()
    return f"{processor}, {torch.get_num_threads()} threads"


def _cpu_info(key: str) -> str:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
