"""The devices of this machine, as drivers tell of them: NVIDIA's by NVML, AMD's by what the kernel shows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KFD = Path("/sys/class/kfd/kfd/topology/nodes")
NVIDIA, AMD = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Device:
    """One device; `id` is what the environment variable `pinned_by` takes."""

    id: str
    name: str
    index: int
    pinned_by: str = NVIDIA


def found(environ: Mapping[str, str] = os.environ) -> tuple[list[Device], str]:
    """The devices that this process may use, and, where there are none, why."""
    devices, reason = _nvidia()
    if not devices:
        devices = _amd(KFD)
    if not devices:
        return [], reason
    allowed = environ.get(devices[0].pinned_by)
    if allowed is None:
        return devices, ""
    kept = [device for device in devices if _is_allowed(device, allowed.split(","))]
    return kept, "" if kept else f"{devices[0].pinned_by}={allowed!r} leaves none of {len(devices)}"


def _is_allowed(device: Device, allowed: list[str]) -> bool:
    return any(each.strip() and (each.strip() == str(device.index) or device.id.startswith(each)) for each in allowed)


def _nvidia() -> tuple[list[Device], str]:
    with _nvml() as (nvml, reason):
        if nvml is None:
            return [], reason
        devices, reasons = [], []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                device = Device(_text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle)), index)
                nvml.nvmlDeviceGetMemoryInfo(handle)
                devices.append(device)
            except nvml.NVMLError as error:
                reasons.append(f"device {index}: {error}")
        return devices, "; ".join(reasons) or "NVIDIA's driver knows of no device"


def trouble(id: str) -> str | None:
    """Why the NVIDIA device of this UUID cannot be used; None when it answers."""
    with _nvml() as (nvml, reason):
        if nvml is None:
            return reason
        reason = "the driver knows of it no more"
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                if _text(nvml.nvmlDeviceGetUUID(handle)) == id:
                    nvml.nvmlDeviceGetMemoryInfo(handle)
                    return None
            except nvml.NVMLError as error:
                reason = str(error)
        return reason


def use(id: str) -> dict[str, Any]:
    """`memory_used` and `memory_total` in bytes, `utilisation` in percent, as far as the driver tells."""
    with _nvml() as (nvml, _):
        if nvml is None:
            return {}
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                if _text(nvml.nvmlDeviceGetUUID(handle)) == id:
                    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                    told = {"memory_used": int(memory.used), "memory_total": int(memory.total)}
                    return told | _utilisation(nvml, handle)
            except nvml.NVMLError:
                continue
    return {}


def _utilisation(nvml: Any, handle: Any) -> dict[str, int]:
    try:
        return {"utilisation": int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)}
    except nvml.NVMLError:
        return {}


@contextmanager
def _nvml() -> Iterator[tuple[Any, str]]:
    """NVIDIA's library, begun; or None, and why it cannot be."""
    try:
        import pynvml
    except ImportError:
        yield None, "nvidia-ml-py is not installed; install it with: pip install 'skybatch[gpu]'"
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield None, f"NVIDIA's driver cannot be used: {error}"
        return
    try:
        yield pynvml, ""
    finally:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            pass


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _amd(nodes: Path) -> list[Device]:
    """By the nodes of the kernel's driver that have compute units for graphics; in the order ROCm counts them."""
    devices: list[Device] = []
    for node in sorted(nodes.glob("*"), key=lambda path: int(path.name) if path.name.isdigit() else -1):
        try:
            lines = (node / "properties").read_text().splitlines()
        except OSError:
            continue
        properties = dict(line.split(None, 1) for line in lines if " " in line)
        if int(properties.get("simd_count", 0)):
            index = len(devices)
            devices.append(Device(str(index), f"gfx{properties.get('gfx_target_version', '')}".strip(), index, AMD))
    return devices
