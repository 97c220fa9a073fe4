"""Google Cloud Storage, over gcsfs: the plain calls of the JSON API, through its session and credentials."""

from __future__ import annotations

from skybatch.formats.stores.general import GeneralStore


class GCSStore(GeneralStore):
    """Placeholder until the next commit."""

    def __init__(self) -> None:
        super().__init__("gs")
