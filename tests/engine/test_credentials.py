"""No credential gets into a job: it is refused before anything is kept or printed, and not repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch.engine.credentials import refuse_in_fields
from skybatch.errors import UsageError
from skybatch.formats import storage
from skybatch.io_formats import JsonReader, JsonWriter

CANARY = "wJalrXUtnFEMI/K7MDENG+canary"
URLS = [
    f"s3://AKIAIOSFODNN7EXAMPLE:{CANARY}@bucket/in.jsonl",
    f"https://{CANARY.replace('/', '')}@example.org/in.jsonl",
    f"https://bucket.example.org/in.jsonl?X-Amz-Date=1&X-Amz-Signature={CANARY}",
    f"https://example.blob.core.windows.net/c/in.jsonl?sv=2024&sig={CANARY}",
    f"simplecache::s3://AKIAIOSFODNN7EXAMPLE:{CANARY}@bucket/in.jsonl",
    f"sftp://user:{CANARY}@host/in.jsonl",
]
HARMLESS = [
    "s3://bucket/user@example.org/in.jsonl",
    "s3://bucket/a:b@c.jsonl",
    "https://example.org:8080/a@b.jsonl",
    "https://example.org/in.jsonl?versionId=7",
    "abfs://container@account.dfs.core.windows.net/in.jsonl",
    "sftp://user@host/in.jsonl",
    "/tmp/me@home/what?token=1",
]


def identity(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return batch


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("place", ["reader", "writer", "arguments"])
def test_a_url_with_credentials_is_refused_and_not_repeated(
    url: str, place: str, tmp_path: Path, skybatch_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n')
    reader = JsonReader(url if place == "reader" else str(tmp_path / "in.jsonl"))
    writer = JsonWriter(url if place == "writer" else str(tmp_path / "out.jsonl"))
    arguments = {"model": {"urls": [url]}} if place == "arguments" else None
    with pytest.raises(UsageError, match="credentials") as caught:
        skybatch.Dataset(reader).map(identity, batch_size=1, output=writer, mapper_args=arguments)
    said = str(caught.value) + "".join(capfd.readouterr())
    assert "canary" not in said and "***" in said
    kept = [path for path in skybatch_home.rglob("*") if path.is_file()]
    assert not any(b"canary" in path.read_bytes() for path in kept)


@pytest.mark.parametrize("path", HARMLESS)
def test_paths_without_credentials_pass(path: str) -> None:
    storage.check_path(path)
    storage.check_path([path, Path(path)])
    assert storage.masked(path) in (path, "/tmp/me@home/what?token=***")


def test_a_list_of_paths_is_looked_at_too() -> None:
    with pytest.raises(UsageError, match=r"s3://\*\*\*@bucket"):
        storage.check_path(["a", URLS[0]])


@dataclass
class Options(JsonReader):
    storage_options: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    "fields",
    [
        {"storage_options": {"key": "AKIA", "secret": CANARY}},
        {"storage_options": {"client_kwargs": {"aws_session_token": CANARY}}},
        {"api_key": CANARY},
        {"mirrors": [URLS[0]]},
    ],
)
def test_fields_with_credentials_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="credential") as caught:
        refuse_in_fields("reader Options", fields)
    assert "canary" not in str(caught.value)


def test_fields_that_only_sound_like_it_pass() -> None:
    refuse_in_fields(
        "reader Options",
        {"image_key": "image", "pad_token": "<pad>", "storage_options": {"anon": True, "secret": "${ENV:MY_SECRET}"}},
    )


def test_storage_options_with_a_secret_are_refused_before_there_is_a_job(tmp_path: Path, skybatch_home: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n')
    reader = Options(str(tmp_path / "in.jsonl"), storage_options={"secret": CANARY})
    with pytest.raises(UsageError, match=r"storage_options\.secret") as caught:
        skybatch.Dataset(reader).map(identity, batch_size=1, output=JsonWriter(str(tmp_path / "out.jsonl")))
    assert "canary" not in str(caught.value) and not list(skybatch_home.glob("jobs/*"))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("GET https://u:p4ssw0rd@h/x failed", "GET https://***@h/x failed"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/x, Signature=ab", "Authorization: ***"),
        ("{'Authorization': 'Bearer ya29.abcdefgh'}", "{'Authorization': '***'}"),
        ("no AKIAIOSFODNN7EXAMPLE here", "no *** here"),
        ("x?a=1&sig=abc%3D&b=2", "x?a=1&sig=***&b=2"),
    ],
)
def test_messages_are_masked(message: str, shown: str) -> None:
    assert storage.masked(message) == shown
