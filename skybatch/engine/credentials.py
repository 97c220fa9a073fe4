"""Credentials are never kept: what would bring one into a job's files is refused before there is a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skybatch.engine.environment import REFERENCE
from skybatch.errors import UsageError
from skybatch.formats import storage

SECRET_WORDS = {"TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS", "APIKEY"}
SECRET_ENDINGS = ("_KEY", "_KEY_ID", "_AUTH")
STORE_OPTIONS = {"key", "connection_string"}  # secret among the options of a store
FIELD_ENDINGS = (
    *("SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS", "APIKEY", "API_KEY"),
    *("ACCESS_KEY", "ACCESS_KEY_ID", "ACCOUNT_KEY", "PRIVATE_KEY", "SECRET_KEY"),
    *("ACCESS_TOKEN", "API_TOKEN", "AUTH_TOKEN", "BEARER_TOKEN", "SAS_TOKEN", "SESSION_TOKEN"),
)
"""Of names of fields, where `image_key` and `pad_token` mean something else."""


def looks_secret(name: str) -> bool:
    """Whether a variable or field of this name usually holds a credential."""
    upper = name.upper()
    return not SECRET_WORDS.isdisjoint(upper.split("_")) or upper.endswith(SECRET_ENDINGS)


def refuse_in_fields(owner: str, fields: Mapping[str, Any]) -> None:
    """Raise UsageError for a field of a reader or writer that carries a credential; it is not repeated."""
    refuse_in_urls(fields)
    for name, value in fields.items():
        _refuse_named(owner, name, name, value, in_options=False)


def refuse_in_urls(value: Any) -> None:
    """Raise UsageError for a URL with credentials anywhere in a JSON value; they are not repeated."""
    if isinstance(value, str):
        storage.refuse_secrets(value)
    elif isinstance(value, Mapping):
        refuse_in_urls(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            refuse_in_urls(one)


def _refuse_named(owner: str, where: str, name: str, value: Any, *, in_options: bool) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_named(owner, f"{where}.{key}", str(key), inner, in_options=True)
    secret = _is_secret_option(name) if in_options else name.upper().endswith(FIELD_ENDINGS)
    if secret and isinstance(value, str) and value and not REFERENCE.fullmatch(value):
        raise UsageError(
            f"{owner}: field {where!r} looks like a credential, and fields are kept in the job's spec; "
            "have the class read it from the environment"
        )


def _is_secret_option(name: str) -> bool:
    return looks_secret(name) or name.lower() in STORE_OPTIONS
