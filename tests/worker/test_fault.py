"""What is told of an exception holds no secret."""

from __future__ import annotations

import pytest

from skybatch.worker.fault import describe

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
