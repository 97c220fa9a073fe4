"""Outputs in object stores: put together there, published once and on conditions, whatever happens in between."""

from __future__ import annotations

import gzip
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from skybatch import utils
from skybatch.cli.exits import CONFLICT
from skybatch.formats import batchfiles, stores
from tests.tools.bench import Bench, end_of
from tests.tools.proxy import LoseReply, Request, running
from tests.tools.servers import use_s3

SCRIPT = Path(__file__).with_name("store_job.py")
ROWS = b"".join(b'{"id":%d,"word":"item %d"}\n' % (index, index**2) for index in range(60))
WORDS = b"".join(b'{"word":"item %d"}\n' % (index**2) for index in range(60))
KILLED = [
    ("seaweedfs_bucket", "composing", 0),
    ("seaweedfs_bucket", "before-publish", 0),
    ("seaweedfs_bucket", "after-publish", 1),
    ("seaweedfs_bucket", "half-cleaned:2", 3),
    ("gcs_bucket", "before-publish:3", 2),
    ("gcs_bucket", "after-publish:2", 2),
]


class StoreBench(Bench):
    """A job with outputs in a bucket."""

    def __init__(self, folder: Path, bucket: str, **options: Any) -> None:
        super().__init__(folder, bucket=bucket, **options)
        self.bucket = bucket

    @property
    def script(self) -> list[str]:
        """Python's arguments to run the job."""
        arguments = super().script
        return [str(SCRIPT), *arguments[1:]]

    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket, by its path in there."""
        store = stores.of(self.bucket)
        return {info.path[len(self.bucket) + 1 :]: store.read(info.path) for info in store.list(self.bucket)}

    def versions(self) -> dict[str, str]:
        """What stands at the outputs' places now."""
        store = stores.of(self.bucket)
        listed = {info.path[len(self.bucket) + 1 :]: info.version for info in store.list(f"{self.bucket}/out")}
        return {path: version for path, version in listed.items() if ".sky_batch_tmp" not in path}

    def assert_done(self) -> None:
        """The outputs are right, and nothing else is left."""
        objects = self.objects()
        assert gzip.decompress(objects.pop("out/rows.jsonl.gz")) == WORDS
        assert objects == {"out/rows.jsonl": ROWS, "out/merged.jsonl": ROWS}
        assert list(stores.of(self.bucket).abandoned(self.bucket)) == []


def test_all_kinds_of_outputs_are_published_in_a_store(moto_bucket: str, tmp_path: Path) -> None:
    bench = StoreBench(tmp_path, moto_bucket)
    bench.succeed(bench.start())
    bench.assert_done()
    again = end_of(bench.start())
    assert again.code == CONFLICT and "exists" in again.err
    versions = bench.versions()
    bench.options["overwrite"] = True
    ended = end_of(bench.start())
    assert ended.code == 0, ended
    bench.assert_done()
    assert bench.versions().keys() == versions.keys()


@pytest.mark.full
@pytest.mark.parametrize(("bucket", "failpoint", "published"), KILLED)
def test_an_engine_killed_around_publishing_publishes_once(
    bucket: str, failpoint: str, published: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bench = StoreBench(tmp_path, request.getfixturevalue(bucket))
    bench.crash(bench.start(failpoint=failpoint))
    before = bench.versions()
    assert len(before) == published
    bench.succeed(bench.start_resume())
    bench.assert_done()
    assert before.items() <= bench.versions().items()
    assert set(Counter(bench.ranges_taken_up()).values()) == {1}


def meddled_with(bucket: str, tmp_path: Path, **options: Any) -> None:
    stranger = f"{bucket}/out/rows.jsonl"
    bench = StoreBench(tmp_path, bucket, meddle=stranger, **options)
    ended = end_of(bench.start())
    assert ended.code == CONFLICT, ended
    assert "left as it is" in ended.err and f"skybatch resume {bench.job_id}" in ended.err
    assert stores.of(bucket).read(stranger) == b"a stranger's"
    assert any(".sky_batch_tmp" in name for name in bench.objects())
    stores.of(bucket).delete([stranger])
    bench.succeed(bench.start_resume())
    bench.assert_done()
    assert set(Counter(bench.ranges_taken_up()).values()) == {1}


def test_what_a_stranger_put_there_meanwhile_stays(moto_bucket: str, tmp_path: Path) -> None:
    meddled_with(moto_bucket, tmp_path)


@pytest.mark.full
def test_what_a_stranger_put_there_meanwhile_stays_in_a_real_store(seaweedfs_bucket: str, tmp_path: Path) -> None:
    meddled_with(seaweedfs_bucket, tmp_path)


@pytest.mark.full
def test_what_a_stranger_changed_meanwhile_stays(gcs_bucket: str, tmp_path: Path) -> None:
    stores.of(gcs_bucket).put(f"{gcs_bucket}/out/rows.jsonl", b"from before")
    meddled_with(gcs_bucket, tmp_path, overwrite=True)


@pytest.mark.full
def test_a_folder_is_complete_when_its_manifest_is_there(moto_bucket: str, tmp_path: Path) -> None:
    bench = StoreBench(tmp_path, moto_bucket, outputs=["shards", "texts"])
    manifests = {"shards/manifest.json", "texts/manifest.json"}
    bench.crash(bench.start(failpoint="before-publish"))
    assert not manifests & bench.objects().keys()
    bench.crash(bench.start_resume(failpoint="after-publish:2"))
    bench.succeed(bench.start_resume())
    objects = bench.objects()
    shards = [name for name in sorted(objects) if name.startswith("shards/part-")]
    assert len(shards) > 1 and b"".join(map(objects.get, shards)) == ROWS  # type: ignore[arg-type]
    texts = {f"texts/{index:08d}.txt": f"item {index**2}".encode() for index in range(60)}
    assert objects.keys() == manifests | {*shards} | texts.keys()
    assert texts.items() <= objects.items()
    again = end_of(bench.start())
    assert again.code == CONFLICT and "a folder with objects in it" in again.err


def is_publishing(request: Request) -> bool:
    """Whether a request puts an output in its place: a put of the whole, or the end of an upload."""
    if ".sky_batch_tmp" in request.path or "/out/" not in request.path:
        return False
    return (request.method == "PUT" and not request.query) or (request.method == "POST" and "uploadId" in request.query)


@pytest.mark.full
def test_a_publish_whose_reply_is_lost_is_recognised(
    seaweedfs: str, seaweedfs_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: set[str] = set()

    def first_time(request: Request) -> LoseReply | None:
        if is_publishing(request) and request.path not in lost:
            lost.add(request.path)
            return LoseReply()
        return None

    with running(seaweedfs, first_time) as proxy:
        use_s3(proxy.url, monkeypatch)
        bench = StoreBench(tmp_path, seaweedfs_bucket)
        bench.succeed(bench.start())
        bench.assert_done()
    assert len(lost) == 3


@pytest.mark.full
@pytest.mark.parametrize("damage", ["missing", "another", "index"])
def test_results_lost_in_the_store_are_mapped_again(damage: str, seaweedfs_bucket: str, tmp_path: Path) -> None:
    bench = StoreBench(tmp_path, seaweedfs_bucket, outputs=["json"])
    bench.crash(bench.start(failpoint="composing"))
    store = stores.of(seaweedfs_bucket)
    segment = next(info for info in store.list(f"{seaweedfs_bucket}/out/.sky_batch_tmp") if info.path.endswith(".seg"))
    if damage == "missing":
        store.delete([segment.path])
    elif damage == "another":
        store.put(segment.path, b"x" * segment.size)
    else:
        store.put(segment.path, b"x" * segment.size)
        store.put(segment.path.replace(".seg", ".idx"), b"x" * 64)
    ended = bench.succeed(bench.start_resume())
    assert "are mapped again" in ended.err
    assert bench.objects() == {"out/rows.jsonl": ROWS}


@pytest.mark.full
def test_more_batch_files_than_a_listing_tells_at_once(seaweedfs_bucket: str) -> None:
    """Strays among them, and those of another output beside it."""
    output, count = f"{seaweedfs_bucket}/out/rows.jsonl", 1050
    folder, store = batchfiles.folder(output, "job"), stores.of(seaweedfs_bucket)
    batches = {f"{folder}/{index:012d}-{index:012d}-aa.jsonl": b'{"id":%d}\n' % index for index in range(count)}
    others = {f"{folder}/stray.txt": b"stray", batchfiles.folder(f"{output}2", "job") + "/x": b"another output's"}
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(store.put, [*batches, *others], [*batches.values(), *others.values()]):
            pass
    assert utils.list_batch_files(output, "job") == list(batches)
    utils.concatenate_batches_to_output(output, "job")
    assert store.read(output) == b"".join(batches.values())
    utils.delete_batch_files(output, "job")
    assert {info.path for info in store.list(seaweedfs_bucket)} == {output, list(others)[1]}
