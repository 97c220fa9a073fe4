"""`docs/journal.md` shows the schema as it is."""

from __future__ import annotations

from pathlib import Path

from skybatch.journal.schema import APPLICATION_ID, SCHEMA, VERSION

DOCS = Path(__file__).parents[2] / "docs" / "journal.md"


def test_the_documented_schema_is_the_one_in_the_code() -> None:
    text = DOCS.read_text()
    assert f"## Schema, version {VERSION}\n" in text
    assert f"```sql\n{SCHEMA}```\n" in text
    assert f"`0x{APPLICATION_ID:08X}`" in text
