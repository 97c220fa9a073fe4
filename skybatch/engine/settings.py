"""How a job is mapped, beside what and by what: checked before there is a job, and kept in its spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skybatch.engine.retries import budgets
from skybatch.engine.spec import ON_ERROR
from skybatch.errors import UnknownName, UsageError


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """See `Dataset.map`. Raises UsageError naming what cannot be."""

    batch_size: int
    concurrency: int = 1
    max_retries: int | Mapping[str, int] = 0
    batch_timeout_s: float | None = None
    on_error: str = "fail"
    max_failed_items: int | None = None
    max_failed_fraction: float | None = None
    speculate: bool = False
    overwrite: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        check_least("batch_size", self.batch_size, 1)
        check_least("concurrency", self.concurrency, 1)
        budgets(self.max_retries)
        if self.batch_timeout_s is not None and not self.batch_timeout_s > 0:
            raise UsageError(f"batch_timeout_s must be more than 0; not {self.batch_timeout_s!r}")
        if self.on_error not in ON_ERROR:
            raise UnknownName("on_error policy", str(self.on_error), ON_ERROR)
        check_failure_limits(self.max_failed_items, self.max_failed_fraction)

    def to_spec(self) -> dict[str, Any]:
        """As fields of a JobSpec."""
        retries = self.max_retries
        return {**vars(self), "max_retries": retries if isinstance(retries, int) else dict(retries)}


def check_failure_limits(items: int | None = None, fraction: float | None = None) -> None:
    """Raise UsageError for limits of failed items that cannot be."""
    if items is not None:
        check_least("max_failed_items", items, 0)
    if fraction is not None and (
        isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1
    ):
        raise UsageError(f"max_failed_fraction must be a number from 0 to 1; not {fraction!r}")


def check_least(key: str, value: object, minimum: int) -> None:
    """Raise UsageError unless `value` is a whole number, and at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UsageError(f"{key} must be a whole number, at least {minimum}; not {value!r}")
