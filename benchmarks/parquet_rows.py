"""The rows of the Parquet benchmark and what is done to each: the standard library alone, for all contenders."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

COLUMNS = ("id", "text", "email", "price", "quantity", "country")
Tidied = tuple[str, int, str, float]
TIDIED = ("text", "words", "domain", "total")

_SENTENCE = (
    "The Quick brown FOX jumps over a lazy dog while Seven wizards quietly judge Boxing matches and naïve cafés "
    "serve 12 Jalapeño dishes in São Paulo"
)
_COUNTRIES = ("BR", "CH", "DE", "FR", "IN", "JP", "NO", "US")


def tidy(text: str, email: str, price: float, quantity: int) -> Tidied:
    """The work on one row: text normalised and counted, a domain, a total."""
    words = text.lower().split()
    return " ".join(words), len(words), email.rpartition("@")[2].lower(), round(price * quantity, 2)


def tidy_rows(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mapper: a new row for every row."""
    tidied = []
    for row in batch:
        text, words, domain, total = tidy(row["text"], row["email"], row["price"], row["quantity"])
        tidied.append(
            {
                "id": row["id"],
                "country": row["country"],
                "text": text,
                "words": words,
                "domain": domain,
                "total": total,
            }
        )
    return tidied


def columns(count: int, start: int) -> dict[str, list[Any]]:
    """Rows `start` and those after it, by column; the same ones in every run."""
    rows = list(itertools.islice(_rows(start), count))
    return {name: list(values) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)}


def _rows(start: int) -> Iterator[tuple[Any, ...]]:
    chance, words = random.Random(start), _SENTENCE.split()
    for number in itertools.count(start):
        text = "  ".join(chance.choices(words, k=chance.randrange(8, 32)))
        email = f"user{number}@Mail{number % 97}.example.com"
        yield number, text, email, chance.randrange(100_000) / 100, chance.randrange(1, 20), chance.choice(_COUNTRIES)
