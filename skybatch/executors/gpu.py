"""Workers on this machine's devices: each sees those of its own, and no others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from skybatch.errors import UsageError
from skybatch.executors import devices
from skybatch.executors.base import ExecutorOptions, Slot
from skybatch.executors.devices import NVIDIA, Device
from skybatch.executors.local import LocalExecutor


class GpuExecutor(LocalExecutor):
    """One worker per device; or `workers_per_gpu`, or `gpus_per_worker`. `workers` is the most there are."""

    keys: ClassVar[frozenset[str]] = frozenset({"accelerators", "gpus_per_worker", "workers_per_gpu"})

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        self._kind, self._count, self._share = _asked(options)
        self._lost: dict[str, str] = {}  # why, by the device's id
        self._devices: dict[str, list[Device]] = {}  # by the name of the slot

    @classmethod
    def check(cls, options: ExecutorOptions) -> None:
        """Raise UsageError for numbers that cannot be, and where no fitting device is to be had."""
        kind, count, _ = _asked(options)
        everything, reason = devices.found()
        fitting = _fitting(everything, kind)
        if len(fitting) < count:
            key = "accelerators" if options.options.get("accelerators") else "executor"
            asked = f"{count} {kind or 'GPU'}{'s' if count > 1 else ''} for each worker"
            there = ", ".join(device.name for device in everything)
            raise UsageError(
                f"{key}: {asked} {'are' if count > 1 else 'is'} asked for, and this machine has"
                f" {there or f'none that can be used ({reason})'}; for its cores: executor: local"
            )

    def slots(self) -> list[Slot]:
        """Those of devices that answer."""
        everything, _ = devices.found()
        fitting = [device for device in _fitting(everything, self._kind) if device.id not in self._lost]
        self._devices = {}
        found: list[Slot] = []
        for begin in range(0, len(fitting) - self._count + 1, self._count):
            mine = fitting[begin : begin + self._count]
            name, place = "gpu" + "-".join(str(device.index) for device in mine), ",".join(each.id for each in mine)
            for number in range(self._share):
                slot = Slot(name=f"{name}.{number}" if self._share > 1 else name, place=place)
                if self.options.workers is None or len(found) < self.options.workers:
                    self._devices[slot.name] = mine
                    found.append(slot)
        return found

    def environment(self, slot: Slot) -> dict[str, str]:
        """With the slot's devices alone visible, before anything is imported."""
        mine = self._devices[slot.name]
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if mine[0].pinned_by == NVIDIA else {}
        return {**super().environment(slot), **order, mine[0].pinned_by: ",".join(device.id for device in mine)}

    def trouble(self, slot: Slot) -> str | None:
        """What the driver says of the slot's devices, if it says anything bad."""
        for device in self._devices.get(slot.name, ()):
            reason = devices.trouble(device.id) if device.pinned_by == NVIDIA else None
            if reason is not None:
                self._lost[device.id] = reason
                return f"{device.name} ({device.id}): {reason}"
        return None

    def aside(self) -> Mapping[str, str]:
        """Devices that were lost."""
        return dict(self._lost)

    def report(self) -> Mapping[str, Mapping[str, Any]]:
        """Memory and utilisation of each device in use."""
        mine = {device.id: device for used in self._devices.values() for device in used}
        return {device.id: {"name": device.name, **devices.use(device.id)} for device in mine.values()}


def _asked(options: ExecutorOptions) -> tuple[str, int, int]:
    """What the devices' name must contain, devices for each worker, workers for each such group."""
    asked = options.options
    kind, count = _accelerators(asked.get("accelerators"))
    count = _whole(asked, "gpus_per_worker", count)
    share = _whole(asked, "workers_per_gpu", 1)
    if count > 1 and share > 1:
        raise UsageError("workers_per_gpu: a worker with several devices shares none of them")
    return kind, count, share


def _whole(asked: Mapping[str, Any], key: str, default: int) -> int:
    value = asked.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{key}: a whole number of at least 1, not {value!r}")
    return value


def _accelerators(asked: Any) -> tuple[str, int]:
    """`L4`, `L4:2`, `{L4: 2}`: a kind and a number."""
    if asked is None:
        return "", 1
    if isinstance(asked, Mapping) and len(asked) == 1:
        ((kind, count),) = asked.items()
        asked = f"{kind}:{count}"
    match = re.fullmatch(r"([\w .-]+?)(?::(\d+))?", asked) if isinstance(asked, str) else None
    if match is None or match[2] == "0":
        raise UsageError(f"accelerators: {asked!r} is not a kind and a number, as L4:1")
    return match[1], int(match[2] or 1)


def _fitting(found: list[Device], kind: str) -> list[Device]:
    """By name, as `A100` is in `NVIDIA A100-SXM4-40GB`, and `A100-80GB` where each part is."""
    parts = [part.lower() for part in re.split(r"[-_ ]", kind) if part]
    return [device for device in found if all(_has(device.name.lower(), part) for part in parts)]


def _has(name: str, part: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(part)}(?![a-z0-9])", name) is not None
