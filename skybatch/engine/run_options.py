"""What may differ from run to run of one job: on which executor, with how many workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skybatch import plugins
from skybatch.engine.environment import resolve
from skybatch.executors.base import ExecutorOptions

if TYPE_CHECKING:
    from skybatch.engine.pools import Pool


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What may differ from run to run of one job."""

    executor: str = "local"
    workers: int | None = None  # None: the executor's default
    env: dict[str, str] = field(default_factory=dict)
    activate_env: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pool: str | None = None  # the name of the pool that all this is from; None for none, or for one without a name

    @classmethod
    def of(cls, pool: Pool) -> RunOptions:
        """Those of a pool."""
        return cls(
            pool=pool.name or None,
            executor=pool.executor,
            workers=pool.workers,
            env=dict(pool.env),
            activate_env=pool.activate_env,
            options=dict(pool.options),
        )

    def check(self) -> None:
        """Raise UnknownName for an executor that is not there, UsageError for what it cannot do."""
        check = getattr(plugins.executor(self.executor), "check", None)
        if check is not None:
            check(self._told(self.env))

    def for_executor(self, log_folder: str) -> ExecutorOptions:
        """As the executor is told, secrets looked up. Raises UsageError when one is not set."""
        return dataclasses.replace(self._told(resolve(self.env)), log_folder=log_folder)

    def _told(self, env: Mapping[str, str]) -> ExecutorOptions:
        return ExecutorOptions(
            workers=self.workers, env=env, activate_env=self.activate_env, options=self.options
        )
