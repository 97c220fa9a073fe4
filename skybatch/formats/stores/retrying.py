"""What went wrong in a store: worth another try, a matter of credentials, or an answer."""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from skybatch.errors import StorageDenied, StorageFailed, UsageError
from skybatch.failpoints import after, before
from skybatch.formats.masking import masked

T = TypeVar("T")

PATIENCE_S = 300.0  # how long one operation is tried before the job pauses; SKYBATCH_STORAGE_PATIENCE_S
TIMEOUT_S = 60.0  # how long a store may be silent within one try; SKYBATCH_STORAGE_TIMEOUT_S
CONNECT_TIMEOUT_S = 10.0
SLOWEST_BYTES_PER_S = 256 * 1024  # what an upload may take beyond the timeout
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 20.0

_of_thread = threading.local()


class Kind(enum.Enum):
    """What a failure calls for."""

    TRANSIENT = "transient"  # try again, with patience
    DENIED = "denied"  # other credentials
    MISSING = "missing"  # an answer: there is nothing
    PRECONDITION = "precondition"  # an answer: the condition does not hold
    OTHER = "other"  # the request makes no sense to this store


class Refusal(StorageFailed):
    """The store understood and said no; `kind`, HTTP `status` and the store's `code` say why."""

    def __init__(self, message: str, *, kind: Kind = Kind.OTHER, status: int | None = None, code: str = "") -> None:
        self.kind, self.status, self.code = kind, status, code
        super().__init__(message)


def patience_s() -> float:
    """How many seconds one operation is tried. Raises UsageError for a variable that is no such number."""
    return _seconds("SKYBATCH_STORAGE_PATIENCE_S", PATIENCE_S)


def timeout_s() -> float:
    """How many seconds without a sign of life end one try. Raises UsageError."""
    return _seconds("SKYBATCH_STORAGE_TIMEOUT_S", TIMEOUT_S)


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        value = float(text or default)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{variable} is a number of seconds, more than 0; not {text!r}")
    return value


def call(what: str, attempt: Callable[[], T]) -> T:
    """What `attempt` returns, trying anew while it fails transiently and patience lasts; `what` names it in errors.

    Raises Refusal for an answer that is no success, StorageDenied at once, StorageFailed when patience is at its end.
    What is no failure of a store (KeyboardInterrupt, UsageError, bugs) goes through.
    """
    import tenacity

    patience, given_up = patience_s(), until_given_up()
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: kind_of(error) is Kind.TRANSIENT),
        wait=tenacity.wait_random_exponential(multiplier=2 * FIRST_WAIT_S, min=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        stop=tenacity.stop_any(tenacity.stop_after_delay(patience), tenacity.stop_when_event_set(given_up)),
        sleep=tenacity.sleep_using_event(given_up),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except (StorageFailed, UsageError, AssertionError, AttributeError, NameError, TypeError):
        raise  # told already, or a bug
    except Exception as error:
        told = told_error(what, error, patience)
    raise told  # outside of the handler, so that the store's own error, which may hold secrets, is not chained


def change(what: str, operation: str, attempt: Callable[[], T]) -> T:
    """As `call`, for what changes something in the store; `operation` names the boundaries on both sides of it."""

    def passing() -> T:
        before("store", operation)
        made = attempt()
        after("store", operation)
        return made

    return call(what, passing)


def until_given_up() -> threading.Event:
    """The event of the innermost `unless` that this thread is in; else one that is nobody's yet."""
    return getattr(_of_thread, "given_up", None) or threading.Event()


@contextmanager
def unless(given_up: threading.Event) -> Iterator[None]:
    """Within the block, what this thread calls is not tried again once the event is set."""
    before = getattr(_of_thread, "given_up", None)
    _of_thread.given_up = given_up
    try:
        yield
    finally:
        _of_thread.given_up = before


def told_error(what: str, error: Exception, patience: float) -> StorageFailed:
    """The error that tells of `error`, without its secrets."""
    kind, (status, code) = kind_of(error), answer_of(error)
    cause = masked(" ".join(f"{code} {_text(error)}".split()))[:500]
    if kind is Kind.MISSING and not code:
        cause = f"not found ({cause})"
    what = masked(what)
    if kind is Kind.DENIED:
        return StorageDenied(f"{what}: the store refuses these credentials ({cause}); renew them, then resume")
    if kind is Kind.TRANSIENT:
        return StorageFailed(f"{what}: gave up after {patience:g} s of trying (SKYBATCH_STORAGE_PATIENCE_S): {cause}")
    return Refusal(f"{what}: {cause}", kind=kind, status=status, code=code)


def kind_of(error: BaseException) -> Kind:
    """What a failure calls for, by the store's answer if there is one, else by the kind of error."""
    status, code = answer_of(error)
    if code in _TRANSIENT_CODES:
        return Kind.TRANSIENT
    if code in _DENIED_CODES:
        return Kind.DENIED
    if code in _MISSING_CODES:
        return Kind.MISSING
    if status is not None and status >= 300:
        return _kind_of_status(status, _text(error))
    for one in _causes(error):
        if (kind := _kind_of_type(one)) is not None:
            return kind
    return Kind.OTHER


def answer_of(error: BaseException) -> tuple[int | None, str]:
    """HTTP status and the store's error code, where an error came of an answer."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, str(response.get("Error", {}).get("Code", ""))
        for kind, name in _STATUS_OF.items():
            if kind in _names_of(one) and str(status := getattr(one, name, None)).isdigit():
                return int(str(status)), ""
    return None, ""


def _kind_of_status(status: int, text: str) -> Kind:
    if status in (401, 403):
        return Kind.TRANSIENT if "rate limit" in text.lower() or "RateLimit" in text else Kind.DENIED
    if status in (404, 410):
        return Kind.MISSING
    if status == 412:
        return Kind.PRECONDITION
    if status in (408, 409, 425, 429) or (status >= 500 and status not in (501, 505)):
        return Kind.TRANSIENT
    return Kind.OTHER


def _kind_of_type(error: BaseException) -> Kind | None:
    if isinstance(error, FileNotFoundError):
        return Kind.MISSING
    if isinstance(error, FileExistsError):
        return Kind.PRECONDITION
    if isinstance(error, PermissionError):
        return Kind.DENIED
    if isinstance(error, (ConnectionError, TimeoutError)):
        return Kind.TRANSIENT
    names = _names_of(error)
    if names & _DENIED_TYPES:
        return Kind.DENIED
    if names & _TRANSIENT_TYPES and not isinstance(getattr(error, "response", None), dict):
        return Kind.TRANSIENT
    if type(error) is OSError and str(error).startswith("Forbidden"):  # gcsfs, of a 403
        return _kind_of_status(403, str(error))
    return None


def _names_of(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _text(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)
    message = response.get("Error", {}).get("Message") if isinstance(response, dict) else None
    return str(message or error) or type(error).__name__


_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_DENIED_CODES = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_MISSING_CODES = frozenset({"NoSuchBucket", "NoSuchKey", "NoSuchUpload"})

# By name, so that no cloud library is imported to look at an error of another one.
_STATUS_OF = {
    "ClientResponseError": "status",  # aiohttp
    "HttpError": "code",  # gcsfs
    "HttpResponseError": "status_code",  # azure
}
_DENIED_TYPES = frozenset(
    {
        "CredentialRetrievalError",
        "DefaultCredentialsError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "RefreshError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)
_TRANSIENT_TYPES = frozenset(
    {
        "ChecksumError",  # gcsfs
        "ClientError",  # aiohttp; botocore's has an answer
        "ConnectionError",  # botocore: nobody there
        "HTTPClientError",  # botocore: connections, timeouts, proxies
        "IncompleteRead",
        "IncompleteReadError",
        "RequestException",  # requests, which gcsfs raises
        "ResponseParserError",
        "ResponseStreamingError",
        "TransportError",  # google.auth
    }
)
