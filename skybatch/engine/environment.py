"""`${ENV:NAME}` in a pool's `env`: how a secret gets to workers without being stored anywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from skybatch.errors import UsageError

REFERENCE = re.compile(r"\$\{ENV:([A-Za-z_][A-Za-z0-9_]*)\}")


def resolve(env: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """`env` with each reference looked up in `environ`, by default this process's; never to be stored.

    Raises UsageError naming a variable that is not set.
    """
    source = os.environ if environ is None else environ

    def look_up(found: re.Match[str]) -> str:
        if found[1] not in source:
            raise UsageError(f"environment variable {found[1]}, which the pool refers to, is not set")
        return source[found[1]]

    return {key: REFERENCE.sub(look_up, value) for key, value in env.items()}
