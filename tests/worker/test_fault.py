"""What is told of an exception holds no secret; and which class of failure it is."""

from __future__ import annotations

import errno
import weakref
from typing import Any

import numpy as np
import pytest

from skybatch.errors import ResultError
from skybatch.worker.fault import describe, kind_of, release

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def test_secrets_in_message_and_traceback_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    try:
        try:
            raise ConnectionError(f"GET https://{KEY}:{SECRET}@host/x?X-Amz-Signature=0123abcd")
        except ConnectionError as cause:
            raise RuntimeError(f"Authorization: Bearer {SECRET}; key {KEY}; {'x' * 1990}{SECRET}") from cause
    except RuntimeError as error:
        told = describe(error)
    for text in (told["message"], told["traceback"]):
        assert KEY not in text and SECRET not in text and "0123abcd" not in text
        assert "wJalr" not in text
    assert "RuntimeError: Authorization: ***" in told["message"]
    assert "ConnectionError: GET https://***@host/x" in told["traceback"]


@pytest.mark.parametrize(("item", "told"), [(7, 7), (np.int64(7), 7), (None, None), ("seven", None)])
def test_the_item_at_fault_is_a_number_or_not_known(item: Any, told: int | None) -> None:
    assert describe(ResultError("no", item=item))["item"] == told


def test_what_others_call_an_item_is_none_of_ours() -> None:
    error = LookupError("no such thing")
    error.item = 12345  # type: ignore[attr-defined]
    assert describe(error)["item"] is None


class OutOfMemoryError(RuntimeError):
    """As PyTorch has it, and CuPy."""


class XlaRuntimeError(RuntimeError):
    """As JAX has it."""


class ResourceExhaustedError(Exception):
    """As TensorFlow has it."""


class ArrayMemoryError(MemoryError):
    """As NumPy has it."""


OF_MEMORY = (
    MemoryError(),
    ArrayMemoryError("Unable to allocate 8.00 TiB for an array with shape (1099511627776,) and data type float64"),
    OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ResourceExhaustedError("OOM when allocating tensor with shape[1024,1024]"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB (GPU 0; 15.78 GiB total capacity)"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory"),
    XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("x"), MemoryError()]),
)
NOT_OF_MEMORY = (
    ValueError("the customer ran out of memory"),
    RuntimeError("CUDA error: device-side assert triggered"),
    OSError(errno.ENOSPC, "No space left on device"),
    ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("x")]),
)


@pytest.mark.parametrize("error", OF_MEMORY, ids=repr)
def test_memory_that_ran_out_is_known_by_class_and_message(error: Exception) -> None:
    assert kind_of(error, "mapper") == "memory"


@pytest.mark.parametrize("error", NOT_OF_MEMORY, ids=repr)
def test_other_errors_have_the_class_of_their_stage(error: Exception) -> None:
    assert kind_of(error, "write") == "write"


def wrapped(how: str) -> Exception:
    """A MemoryError that was caught, and another error raised."""
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            if how == "from it":
                raise ValueError("no good") from error
            if how == "from None":
                raise ValueError("no good") from None
            raise ValueError("no good")  # noqa: B904 - that is the case
    except ValueError as error:
        return error


WRAPPED = [("from it", "memory"), ("in its handler", "memory"), ("from None", "mapper")]


@pytest.mark.parametrize(("how", "kind"), WRAPPED)
def test_error_raised_for_want_of_memory_is_of_memory_unless_it_denies_its_cause(how: str, kind: str) -> None:
    assert kind_of(wrapped(how), "mapper") == kind


def test_released_error_holds_no_variables_of_the_functions_that_failed() -> None:
    class Huge:
        pass

    def fails() -> None:
        huge = Huge()
        alive.append(weakref.ref(huge))
        raise MemoryError

    alive: list[weakref.ref[Huge]] = []
    try:
        fails()
    except MemoryError as error:
        release(error)
        assert alive[0]() is None
        assert "in fails" in describe(error)["traceback"]
