"""Secrets in paths and messages: recognised, refused, masked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from skybatch.errors import UsageError

MASK = "***"

_USER_ALONE_IS_NO_SECRET = ("abfs", "abfss", "hdfs", "sftp", "smb", "ssh")
"""Schemes where `name@host` is how a place is written; with a password it is a secret there too."""

_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<info>[^/\s@:]*:(?!\d+/)[^\s@]*|[^/\s@:]+)@", re.IGNORECASE)
_QUERY = re.compile(
    r"(?P<name>[?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|googleaccessid|signature"
    r"|sig|token|(?:access|auth|id|refresh|sas|session)[_-]?token|(?:api[_-]?)?key|secret|password)=)(?P<value>[^&\s'\"]*)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<name>\b(?:authorization|x-amz-security-token|x-goog-iam-authorization-token)\b['\"]?\s*[:=]\s*['\"]?)"
    r"(?:(?:Bearer|Basic)\s+[^\s'\",]+|AWS4-HMAC-SHA256[^\n'\"]*|[^\s'\",]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\bBearer\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b")
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AZURE_STORAGE_KEY")
_LEAST_SECRET = 8  # a shorter value is more likely a word of the message


def masked(text: str) -> str:
    """`text`, a path or a message, with every secret that can be recognised replaced."""
    for variable in _SECRET_VARIABLES:
        value = os.environ.get(variable, "")
        if len(value) >= _LEAST_SECRET:
            text = text.replace(value, MASK)
    text = _USERINFO.sub(_without_userinfo, text)
    text = _QUERY.sub(rf"\g<name>{MASK}", text)
    text = _HEADER.sub(rf"\g<name>{MASK}", text)
    return _ACCESS_KEY.sub(MASK, _BEARER.sub(MASK, text))


def refuse_secrets(path: str) -> None:
    """Raise UsageError for a path that carries credentials; its message does not repeat them."""
    userinfo = any(map(_is_secret, _USERINFO.finditer(path)))
    if userinfo or ("://" in path and _QUERY.search(path)):
        raise UsageError(
            f"{masked(path)}: credentials in a path would end up in the job's files and messages; "
            "leave them out and give them to the store by the environment (see docs/storage.md)"
        )


def check_path(path: object) -> None:
    """Refuse a path, or a list of paths, that a reader or writer must not have. Raises UsageError."""
    if isinstance(path, (str, os.PathLike)):
        refuse_secrets(os.fspath(path) if isinstance(path, str) else str(path))
    elif isinstance(path, Iterable):
        for one in path:
            check_path(one)


def _is_secret(match: re.Match[str]) -> bool:
    return ":" in match["info"] or match["scheme"].lower() not in _USER_ALONE_IS_NO_SECRET


def _without_userinfo(match: re.Match[str]) -> str:
    return f"{match['scheme']}://{MASK}@" if _is_secret(match) else match[0]
