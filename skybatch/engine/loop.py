"""The mapping phase: joins scheduler, workers and journal in one loop that sleeps until something happens."""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable
from typing import Any

from skybatch.engine import events, stops, told
from skybatch.engine.control import ControlServer
from skybatch.engine.events import RangeFailed, RangesDone, WorkerLost, WorkerReady
from skybatch.engine.interrupts import Interrupts
from skybatch.engine.preemptions import Preemptions
from skybatch.engine.scheduler import Scheduler
from skybatch.engine.stops import Stop
from skybatch.engine.stuck import StuckWatch
from skybatch.engine.versions import skew
from skybatch.engine.workers import LiveWorker, Workers
from skybatch.failpoints import reach
from skybatch.journal.journal import Journal
from skybatch.journal.rows import Changes, FailureRow
from skybatch.worker.frames import Frame

TURN_S = 0.1
"""After so long the news are committed and answered, whoever else has something to say: with thousands of workers, all
of them may."""


class Loop:
    """Runs until every item is won or dead, or something stops it."""

    def __init__(
        self,
        *,
        journal: Journal,
        executor_workers: Workers,
        selector: selectors.BaseSelector,
        control: ControlServer,
        interrupts: Interrupts,
        batch_timeout_s: float | None,
        code: str,
        on_progress: Callable[[Loop], None],
        before_commit: Callable[[Changes], None],
        on_commit: Callable[[Changes], Stop | None],
        notify: Callable[..., None],
    ) -> None:
        self._journal, self._workers, self._selector = journal, executor_workers, selector
        self._control, self._interrupts = control, interrupts
        self._code = code
        self._on_progress, self._notify = on_progress, notify
        self._before_commit, self._on_commit = before_commit, on_commit
        self.scheduler: Scheduler | None = None
        self.stop: Stop | None = None
        self._draining = False
        self._halted: Stop | None = None
        self._grants: dict[int, events.Grant] = {}  # in workers' hands
        self._early: list[int] = []  # workers that were ready before the scheduler was
        self._changes = Changes()
        self._preemptions = Preemptions()
        self._out: list[tuple[int, Frame]] = []
        self._told: list[tuple[str, dict[str, Any]]] = []
        self._segments: dict[str, Frame] = {}
        self._storage_said = ""
        self._stuck = StuckWatch(executor_workers, batch_timeout_s)
        self._hearers = {
            "done": self._hear_done,
            "failed": self._hear_failed,
            "ready": self._hear_ready,
            "started": self._hear_started,
            "lost": self._hear_lost,
            "bye": self._hear_bye,
            "interrupted": self._hear_interrupted,
            "broken": self._hear_broken,
            "storage": self._hear_storage,
        }

    # What the rest of the engine calls

    def map(self, scheduler: Scheduler, wanted: int) -> Stop | None:
        """Map what the scheduler has left, with at most `wanted` workers; why it stopped early, if it did."""
        self.scheduler = scheduler
        self._wanted = wanted
        if scheduler.finished:
            return None
        self._workers.fill(wanted)
        self._interrupts.raising = False
        stop = self._map()
        if stop is None:
            self._interrupts.raise_missed()
        return stop

    def renew(self) -> None:
        """Make ready for mapping once more, with other workers."""
        self.scheduler = None
        self._early = []
        self._grants.clear()

    def _map(self) -> Stop | None:
        assert self.scheduler is not None
        early, self._early = self._early, []
        for number in early:
            self._handle(WorkerReady(number))
        self._flush()
        while not self.scheduler.finished and self.stop is None:
            if self._draining and not self._workers.live:
                break
            self._turn()
        return self.stop

    def on_frames(self, worker: LiveWorker, frames: list[Frame] | None) -> None:
        """What a worker said, or that it is gone."""
        if frames is None:
            self._gone(worker)
            return
        for frame in frames:
            self._hear(worker, frame)

    def on_signal(self, count: int, number: int) -> None:
        """First: finish what is in hand. Second: kill the workers."""
        name = signal.Signals(number).name
        self.halt("paused", f"interrupted by {name}", 128 + number, kill=count > 1)

    def on_cancel(self) -> None:
        """Asked through the control socket."""
        self.halt("cancelled", "cancelled by request", 75, kill=True)

    def halt(self, state: str, cause: str, exit_code: int, *, kill: bool) -> None:
        """Stop in a resumable state, after the batches in hand unless `kill`."""
        self._draining = True
        self._halted = Stop(state=state, cause=cause, exit_code=exit_code)
        if kill or self.scheduler is None:
            self._workers.kill_all()
            self.stop = self._halted
            return
        self._handle(events.Drain())
        self._workers.broadcast({"op": "drain"})
        if not self._workers.live:
            self.stop = self._halted

    # One turn

    def _turn(self) -> None:
        assert self.scheduler is not None
        ready = self._selector.select(self._patience())
        until = time.monotonic() + TURN_S
        for key, _ in ready:
            key.data()
            if time.monotonic() > until:
                break  # who was not heard is still readable
        if self.scheduler.next_wake is not None and self.scheduler.next_wake <= time.monotonic():
            self._handle(events.Tick())
        self._stuck.look()
        if not self._draining and not self.scheduler.finished and self.stop is None:
            self._workers.fill(self._wanted)
            reasons = self._workers.without_hope()
            if reasons is not None:
                self._give_up(stops.of_no_worker(reasons))
        self._flush()
        if self._draining and not self._workers.live:
            self.stop = self._halted

    def _patience(self) -> float | None:
        assert self.scheduler is not None
        looks = (self.scheduler.next_wake, self._workers.next_look(), self._stuck.next_look())
        waits = [at for at in looks if at is not None]
        return max(0.0, min(waits) - time.monotonic()) if waits else None

    def _flush(self) -> None:
        """Commit the turn's changes, then let the world know."""
        if self._changes:
            changes, self._changes = self._changes, Changes()
            self._before_commit(changes)
            reach("before-commit")
            self._journal.commit(changes)
            reach("after-commit")
            self.stop = self.stop or self._on_commit(changes)
        out, self._out = self._out, []
        for number, frame in out:
            self._workers.send(number, frame)
            reach("after-dispatch")
        if self._told:
            news, self._told = self._told, []
            ranges = [values for name, values in news if name == "won"]
            if ranges:
                self._notify("skybatch_ranges_finished", ranges=[(v["start"], v["end"]) for v in ranges])
            for name, values in news:
                if name == "failed":
                    self._notify("skybatch_range_failed", **values)
            self._on_progress(self)

    # What workers say

    def _hear(self, worker: LiveWorker, frame: Frame) -> None:
        hear = self._hearers.get(frame["op"])
        if hear is not None:
            hear(worker, frame)

    def _hear_done(self, worker: LiveWorker, frame: Frame) -> None:
        reach("after-upload")
        self._segments[frame["nonce"]] = frame
        self._handle(
            RangesDone(
                worker.number,
                frame["grant"],
                frame["start"],
                frame["end"],
                frame["nonce"],
                frame["seconds"],
                frame["ranges"],
            ),
            worker,
        )
        self._segments.clear()

    def _hear_failed(self, worker: LiveWorker, frame: Frame) -> None:
        if self._workers.set_aside_if_troubled(worker):
            return
        self._fail(told.failure(frame, worker.slot.name))
        self._handle(
            RangeFailed(
                worker.number,
                frame["grant"],
                frame["start"],
                frame["end"],
                frame["kind"],
                frame["signature"],
            ),
            worker,
        )

    def _hear_ready(self, worker: LiveWorker, frame: Frame) -> None:
        self._workers.set_ready(worker)
        if self.scheduler is None:
            self._early.append(worker.number)
        else:
            self._handle(WorkerReady(worker.number))

    def _hear_started(self, worker: LiveWorker, frame: Frame) -> None:
        if skewed := skew(frame):
            self._give_up(Stop(state="paused", cause=skewed, exit_code=75))

    def _hear_lost(self, worker: LiveWorker, frame: Frame) -> None:
        worker.lost = worker.lost or frame

    def _hear_bye(self, worker: LiveWorker, frame: Frame) -> None:
        worker.said_bye = True
        self._workers.let_go(worker)

    def _hear_interrupted(self, worker: LiveWorker, frame: Frame) -> None:
        self.halt("paused", "interrupted", 130, kill=True)

    def _hear_broken(self, worker: LiveWorker, frame: Frame) -> None:
        stop = stops.of_broken_worker(frame)
        if worker.ready or self._workers.places.is_alone(worker.slot.place):
            self._give_up(stop)
            return
        worker.broken = stop.cause  # another place may have what this one lacks
        self._workers.kill(worker)

    def _hear_storage(self, worker: LiveWorker, frame: Frame) -> None:
        """Nobody's fault: another worker may have better luck, unless waiting does not help."""
        grants = [self._grants[number] for number in sorted(worker.grants)]
        if grants:
            self._fail(told.storage_failure(grants[0], frame, worker.slot.name))
        self._storage_said = frame["message"]
        if frame.get("lasting") or self.scheduler is None or not self._workers.kill(worker):
            self._give_up(self._storage_down())
            return
        worker.said_bye = True
        self._handle(WorkerLost(worker.number, "storage"))

    def _storage_down(self) -> Stop:
        return Stop(state="paused", cause=f"storage failed: {self._storage_said}", exit_code=75)

    def _gone(self, worker: LiveWorker) -> None:
        if worker.said_bye or self.stop is not None:
            self._handle(WorkerLost(worker.number, "gone", ()))
            return
        if not worker.ready:
            if (worker.lost or {}).get("reason") != "preempted" and not worker.draining:
                self._not_started(worker)
            return
        if self._workers.set_aside_if_troubled(worker):
            self._handle(WorkerLost(worker.number, "gone", ()))
            return
        held = tuple((start, end) for start, end in (worker.lost or {}).get("held", []))
        reason = self._preemptions.reason(worker.lost or {})
        if reason == "preempted" and held:
            grants = [self._grants[number] for number in worker.grants]
            self._fail(told.preemption(grants, *held[0], worker.slot.name))
        self._handle(WorkerLost(worker.number, reason, held), worker)

    def _not_started(self, worker: LiveWorker) -> None:
        words = worker.broken or worker.channel.last_words() or told.death(worker.lost)
        if not self._workers.places.failed(worker.slot.place, words, time.monotonic()):
            self._give_up(Stop(state="failed", cause=f"workers cannot be started: {words}", exit_code=1))

    def _give_up(self, stop: Stop) -> None:
        self.stop = self.stop or stop

    # Scheduler and journal

    def _handle(self, event: events.Event, worker: LiveWorker | None = None) -> None:
        if self.scheduler is None:
            return
        for decision in self.scheduler.handle(event, time.monotonic()):
            if worker is not None and isinstance(event, WorkerLost):
                self._record_loss(worker, decision)
            self._decide(decision, worker)

    def _decide(self, decision: events.Decision, worker: LiveWorker | None) -> None:
        changes = self._changes
        if isinstance(decision, events.Grant):
            self._grant(decision)
        elif isinstance(decision, events.Won):
            self._win(decision, worker)
        elif isinstance(decision, events.EndGrant):
            changes.ended_grants.append(decision.grant)
            self._forget_grant(decision.grant)
        elif isinstance(decision, events.Retry):
            changes.retrying.append(told.waiting(decision.unit, self._code))
        elif isinstance(decision, events.Split):
            changes.splits.append((decision.start, decision.end, len(decision.parts)))
            changes.retrying += (told.waiting(part, self._code) for part in decision.parts)
        elif isinstance(decision, events.Dead):
            changes.dead.append(told.dead(decision, self._code))
            self._told.append(("dead", {}))
        elif isinstance(decision, events.Broken):
            self._broken(decision, worker)
        elif isinstance(decision, events.Fits):
            changes.fits = decision.items
        elif isinstance(decision, events.OverBudget):
            self._give_up(stops.of_budget(decision, self._journal.job().id))
        elif isinstance(decision, events.StorageDown):
            self._give_up(self._storage_down())

    def _grant(self, grant: events.Grant) -> None:
        ranges = -(-(grant.end - grant.start + 1) // grant.size)
        worker = self._workers.live.get(grant.worker)
        if worker is not None:
            worker.grants[grant.grant] = ranges
            worker.heard_at = max(worker.heard_at, time.monotonic() if len(worker.grants) == 1 else 0.0)
        self._grants[grant.grant] = grant
        self._changes.grants.append(told.granted(grant, self._journal.epoch))
        self._out.append((grant.worker, told.grant_frame(grant, len(self._workers.live))))

    def _forget_grant(self, number: int) -> None:
        grant = self._grants.pop(number, None)
        worker = self._workers.live.get(grant.worker) if grant else None
        if worker is not None:
            worker.grants.pop(number, None)

    def _win(self, won: events.Won, worker: LiveWorker | None) -> None:
        frame = self._segments[won.nonce]
        if not frame.get("kept"):
            frame["kept"] = True
            number = str(worker.number if worker else "")
            self._changes.segments.append(told.segment(frame, self._journal.epoch, number))
        self._changes.won.append(told.won(won, frame["size"], self._code))
        self._told.append(("won", {"start": won.start, "end": won.end}))

    def _record_loss(self, worker: LiveWorker, decision: events.Decision) -> None:
        """A worker's death as a failure of the range it was charged to, if to any."""
        failure = told.loss(decision, worker.lost, worker.slot.name)
        if failure is not None:
            self._fail(failure)

    def _fail(self, failure: FailureRow) -> None:
        self._changes.failures.append(failure)
        values = {key: getattr(failure, key) for key in ("start", "end", "kind", "message")}
        self._told.append(("failed", values))

    def _broken(self, decision: events.Broken, worker: LiveWorker | None) -> None:
        self._flush_failures()
        last = next(iter(self._journal.failures(1)), None)
        self._give_up(stops.of_broken_mapper(decision, last, worker.lost if worker else None))

    def _flush_failures(self) -> None:
        changes, self._changes = self._changes, Changes()
        if changes:
            self._journal.commit(changes)
