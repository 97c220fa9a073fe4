"""The NVIDIA devices of a machine, asked of the driver's own library. Standard library only: it travels to hosts."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, List

LIBRARY = "libnvidia-ml.so.1"
_TEXT = 96  # bytes, as NVML has them


def devices() -> List[Dict[str, Any]]:
    """`uuid`, `name` and `memory` (bytes) of each device that answers; none where there is no driver."""
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return []
    if nvml.nvmlInit_v2():
        return []
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return []
        found = (_device(nvml, index) for index in range(count.value))
        return [device for device in found if device]
    finally:
        nvml.nvmlShutdown()


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def _device(nvml: Any, index: int) -> Dict[str, Any]:
    handle, memory = ctypes.c_void_p(), _Memory()
    uuid, name = ctypes.create_string_buffer(_TEXT), ctypes.create_string_buffer(_TEXT)
    if (
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
        or nvml.nvmlDeviceGetUUID(handle, uuid, _TEXT)
        or nvml.nvmlDeviceGetName(handle, name, _TEXT)
        or nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    ):
        return {}
    return {"uuid": uuid.value.decode(), "name": name.value.decode(), "memory": memory.total}
