"""The crew of one run: starts workers in the executor's slots, restarts those that die, and ends them all."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from skybatch.engine.places import Places
from skybatch.errors import SkybatchError
from skybatch.executors.base import Executor, Slot, WorkerChannel
from skybatch.worker.frames import Frame

START_TIMEOUT_S = 1800.0
"""In a job with a batch timeout: so long a mapper may take to be made, and to ask for its first batch."""
END_TIMEOUT_S = 5.0
REAPED_TOGETHER = 8
"""So many workers that were let go are seen to together, and twice as many as there are still when there are more."""


@dataclass
class LiveWorker:
    """One worker now running."""

    number: int  # unique in this run
    slot: Slot
    channel: WorkerChannel
    ready: bool = False
    draining: bool = False  # its slot is there no more
    broken: str = ""  # why it cannot work, as it said before it was ready
    lost: Frame | None = None  # what its parent said of its death
    heard_at: float = 0.0
    answered: bool = False  # a range of a grant: its mapper has begun
    said_bye: bool = False
    grants: dict[int, int] = field(default_factory=dict)  # grant -> ranges


class Workers:
    """Keeps the slots filled. `on_frames(worker, frames)` is called from the loop; None means it is gone."""

    def __init__(
        self,
        executor: Executor,
        selector: selectors.BaseSelector,
        config: Callable[[Slot], Frame],
        on_frames: Callable[[LiveWorker, list[Frame] | None], None],
    ) -> None:
        self._executor, self._selector, self._config, self._on_frames = executor, selector, config, on_frames
        self.live: dict[int, LiveWorker] = {}
        self.places = Places(executor)
        self._ending: list[WorkerChannel] = []
        self._reap_at = REAPED_TOGETHER
        self._numbers = 0
        self._filled_to = -1  # as many as were wanted when every slot was last looked at; -1: look again
        self._changes = executor.fileno()
        self._any_ready_at: float | None = None  # when a worker was last seen ready
        if self._changes is not None:
            selector.register(self._changes, selectors.EVENT_READ, self._refresh)

    def fill(self, wanted: int) -> None:
        """Start workers until `wanted` run, or all slots that can be used are filled."""
        now = time.monotonic()
        if wanted <= self._filled_to and not self.places.has_returned(now):
            return
        self._filled_to = wanted
        taken = {worker.slot.name for worker in self.live.values()}
        refusing: set[str] = set()
        for slot in self.places.usable(now):
            if len(self.live) >= wanted:
                return
            if slot.name not in taken and slot.place not in refusing and not self._start(slot):
                refusing.add(slot.place)

    def _start(self, slot: Slot) -> bool:
        channel = self._channel(slot)
        if channel is None:
            return False
        self._numbers += 1
        worker = LiveWorker(number=self._numbers, slot=slot, channel=channel, heard_at=time.monotonic())
        self.live[worker.number] = worker
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._readable(worker))
        return True

    def _channel(self, slot: Slot) -> WorkerChannel | None:
        """A new worker; None when there are other places to try. Raises what the executor raised in the only one."""
        while True:
            try:
                return self._executor.start(slot, self._config(slot))
            except (OSError, SkybatchError) as error:
                if not slot.place or not self.places.failed(slot.place, str(error), time.monotonic()):
                    raise
            if not self.places.is_alone(slot.place):
                return None

    def _refresh(self) -> None:
        """The executor's slots have changed: workers of those that went finish what they have in hand."""
        names = self.places.refresh()
        self._filled_to = -1
        for worker in self.live.values():
            if worker.slot.name not in names and not worker.draining:
                worker.draining = True
                if worker.ready:
                    self.send(worker.number, {"op": "drain"})
                else:
                    worker.channel.kill()  # its place may be gone, and it would never begin

    def set_ready(self, worker: LiveWorker) -> None:
        """It can take grants: its place is fit for work."""
        worker.ready = True
        self.places.worked(worker.slot.place)

    def set_aside_if_troubled(self, worker: LiveWorker) -> bool:
        """Whether something is wrong with its place: then that is set aside, and all workers there are killed."""
        reason = self._executor.trouble(worker.slot)
        if reason is None:
            return False
        self.places.set_aside(worker.slot.place, reason, time.monotonic())
        for other in list(self.live.values()):
            if other.slot.place == worker.slot.place:
                other.channel.kill()
        return True

    def report(self) -> dict[str, Any]:
        """Workers and places as `status` shows them, as JSON."""
        now = time.monotonic()
        workers = [
            {
                "name": worker.slot.name,
                "place": worker.slot.place,
                "mode": worker.channel.mode,
                "state": "draining" if worker.draining else "ready" if worker.ready else "starting",
                "ranges": sum(worker.grants.values()),
            }
            for worker in self.live.values()
        ]
        known = self._executor.report()
        aside = self.places.aside(now)
        places = [{"name": name, "aside": aside.get(name), "facts": known.get(name, {})} for name in {**known, **aside}]
        return {"workers": workers, "places": places}

    def without_hope(self) -> dict[str, str] | None:
        """Why there is no worker and will be none, by place; None while there is one, or may be."""
        now = time.monotonic()
        if any(worker.ready for worker in self.live.values()):
            self._any_ready_at = now
        if self.live or self.places.usable(now) or self._executor.expects_slots() or now < self._patient_until(now):
            return None
        return dict(self.places.aside(now))

    def next_look(self) -> float | None:
        """When there is something to do here even if nothing happens: a place may be tried again, or hope has ended."""
        now = time.monotonic()
        waits = [self.places.next_return(now)]
        if not self.live:
            waits.append(self._patient_until(now))
        return min((at for at in waits if at is not None and at > now), default=None)

    def _patient_until(self, now: float) -> float:
        """Until when it is waited for places to become fit again; not at all where none ever was."""
        return now if self._any_ready_at is None else self._any_ready_at + self._executor.patience_s

    def _readable(self, worker: LiveWorker) -> None:
        try:
            frames = worker.channel.receive()
        except OSError:
            frames = None
        worker.heard_at = time.monotonic()
        if frames is None:
            self._remove(worker)
        else:
            worker.answered |= any(frame["op"] in ("done", "failed") for frame in frames)
        self._on_frames(worker, frames)

    def _remove(self, worker: LiveWorker) -> None:
        if self.live.pop(worker.number, None) is not None:
            self._filled_to = -1
            self._selector.unregister(worker.channel)
            worker.channel.close()
            self._ending.append(worker.channel)
            if len(self._ending) >= self._reap_at:
                self._ending = [channel for channel in self._ending if not channel.wait(0)]
                self._reap_at = 2 * len(self._ending) + REAPED_TOGETHER

    def send(self, number: int, frame: Frame) -> None:
        """Send a frame; to a worker that is gone, nothing (its end of file says the rest)."""
        worker = self.live.get(number)
        if worker is not None:
            try:
                worker.channel.send(frame)
            except OSError:
                pass

    def broadcast(self, frame: Frame) -> None:
        """Send a frame to every worker."""
        for number in list(self.live):
            self.send(number, frame)

    def let_go(self, worker: LiveWorker) -> None:
        """It has said all it had to say: end it, and the threads and children that would keep it."""
        if not self._executor.in_this_process:
            worker.channel.close()

    def kill(self, worker: LiveWorker) -> bool:
        """Kill one worker; its end of file follows. False where none can be killed, as it shares this process."""
        worker.channel.kill()
        return not self._executor.in_this_process

    def kill_all(self) -> None:
        """Kill all; they are gone from `live` at once, and nothing they say is heard any more."""
        for worker in list(self.live.values()):
            worker.channel.kill()
            self._remove(worker)

    def dismiss(self) -> None:
        """Tell all to stop and close their streams; does not wait."""
        self.broadcast({"op": "stop"})
        for worker in list(self.live.values()):
            self._remove(worker)

    def close(self) -> None:
        """Wait for the end of all; kill what does not end in time."""
        for worker in list(self.live.values()):
            self._remove(worker)
        deadline = time.monotonic() + END_TIMEOUT_S
        for channel in self._ending:
            if not channel.wait(max(0.0, deadline - time.monotonic())):
                channel.kill()
                channel.wait(END_TIMEOUT_S)
        self._ending.clear()
        if self._changes is not None:
            self._selector.unregister(self._changes)
        self._executor.close()
