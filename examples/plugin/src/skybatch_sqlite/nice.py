"""An executor: workers of this machine that give way to whatever else runs on it."""

from pathlib import Path

from skybatch.errors import UsageError
from skybatch.executors.base import Executor, numbered
from skybatch.executors.connection import LOADER, ProcessConnection
from skybatch.executors.remote import Boot, RemoteChannel


class NiceExecutor(Executor):
    """`workers` processes at the priority `niceness`, 19 if nothing is said; a pool's own key."""

    keys = frozenset({"niceness", "python"})

    @classmethod
    def check(cls, options):
        niceness = options.options.get("niceness", 19)
        if not isinstance(niceness, int) or not 0 <= niceness <= 19:
            raise UsageError(f"niceness: a whole number from 0 to 19, not {niceness!r}")

    def slots(self):
        return numbered(self.options.workers or 1)

    def start(self, slot, config):
        own = self.options.options
        command = ["nice", "-n", str(own.get("niceness", 19)), own.get("python", "python3"), "-S", "-c", LOADER]
        folder = self.options.log_folder
        errors = Path(folder, f"worker-{slot.name}.err") if folder else None
        boot = Boot(env=self.options.env, activate_env=self.options.activate_env)
        return RemoteChannel(ProcessConnection(command, errors), config, boot, log_folder=folder, name=slot.name)
