"""What every store keeps to: one suite over moto, SeaweedFS, fake-gcs-server and fsspec's memory."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skybatch.errors import SegmentDamaged, UsageError
from skybatch.formats import stores
from skybatch.formats.stores import ANYTHING, Composer, ObjectInfo, Piece, Store
from skybatch.formats.stores.buckets import slices
from skybatch.formats.stores.parts import MIB

STORES = [
    pytest.param("moto_bucket", id="moto"),
    pytest.param("memory", id="memory"),
    pytest.param("seaweedfs_bucket", id="seaweedfs", marks=pytest.mark.full),
    pytest.param("gcs_bucket", id="gcs", marks=pytest.mark.full),
]


@pytest.fixture(params=STORES)
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memory":
        yield f"memory://{uuid.uuid4().hex}"
    else:
        yield request.getfixturevalue(request.param)


@pytest.fixture
def store(bucket: str) -> Store:
    return stores.of(bucket)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def test_what_is_put_can_be_read_in_ranges(store: Store, bucket: str) -> None:
    path = f"{bucket}/folder/some object, ü+%20.bin"
    put = store.put(path, b"0123456789", owner="me")
    info = store.info(path)
    assert (info.path, info.size, info.version, info.owner) == (path, 10, put.version, "me")
    assert store.read(path) == b"0123456789"
    assert store.read(path, 3) == b"3456789"
    assert store.read(path, 2, 5) == b"234" == store.read(path, 2, 5, version=put.version)
    assert store.read(path, 8, 100) == b"89"
    assert store.read(path, 10, 12) == b"" == store.read(path, 4, 4)
    store.put(path, b"")
    assert store.read(path) == b"" and store.info(path).size == 0


def test_what_is_not_there_is_told_from_what_was_altered(store: Store, bucket: str) -> None:
    for asked in (store.info, store.read):
        with pytest.raises(FileNotFoundError, match="no such object"):
            asked(f"{bucket}/nothing")
    before = store.put(f"{bucket}/a", b"before")
    store.put(f"{bucket}/a", b"behind")
    with pytest.raises(SegmentDamaged, match="not what it was"):
        store.read(f"{bucket}/a", 1, 3, version=before.version)


def test_a_put_holds_to_its_condition(store: Store, bucket: str) -> None:
    path = f"{bucket}/a"
    first = store.put(path, b"first", replaces=None, owner="one")
    with pytest.raises(FileExistsError, match="something else"):
        store.put(path, b"second", replaces=None, owner="two")
    assert store.read(path) == b"first"
    second = store.put(path, b"second!", replaces=first.version, owner="two")
    with pytest.raises(FileExistsError, match="something else"):
        store.put(path, b"third", replaces=first.version, owner="three")
    with pytest.raises(FileExistsError, match="not there any more"):
        store.put(f"{bucket}/gone", b"third", replaces=second.version, owner="three")
    assert store.read(path) == b"second!" and second.version != first.version
    assert store.put(path, b"fourth", replaces=ANYTHING).size == 6


def test_a_put_that_finds_its_own_token_has_succeeded(store: Store, bucket: str) -> None:
    first = store.put(f"{bucket}/a", b"mine", replaces=None, owner="me")
    again = store.put(f"{bucket}/a", b"mine", replaces=None, owner="me")
    assert again.version == first.version
    with pytest.raises(FileExistsError):
        store.put(f"{bucket}/a", b"mine", replaces=None)


def test_of_sixteen_who_put_at_once_one_wins(store: Store, bucket: str) -> None:
    def put(number: int) -> bool:
        try:
            store.put(f"{bucket}/a", b"%d" % number, replaces=None, owner=f"owner {number}")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = [number for number, has_won in enumerate(pool.map(put, range(16))) if has_won]
    assert len(won) == 1
    assert store.read(f"{bucket}/a") == b"%d" % won[0] and store.info(f"{bucket}/a").owner == f"owner {won[0]}"


def test_a_listing_is_sorted_and_of_that_folder_alone(store: Store, bucket: str) -> None:
    names = ["a/2", "a/10", "a/b/c", "a/B"]
    for name in [*names, "ab/1", "a.txt"]:
        store.put(f"{bucket}/{name}", name.encode())
    listed = list(store.list(f"{bucket}/a"))
    assert [info.path for info in listed] == sorted(f"{bucket}/{name}" for name in names)
    assert [(info.size, info.version) for info in listed] == [
        (info.size, info.version) for info in map(store.info, (one.path for one in listed))
    ]
    assert list(store.list(f"{bucket}/a/")) == listed
    assert list(store.list(f"{bucket}/nothing")) == []


@pytest.mark.full
def test_more_than_a_thousand_objects_are_listed_and_deleted(store: Store, bucket: str) -> None:
    paths = [f"{bucket}/many/{number:05}" for number in range(1_050)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: store.put(path, b"x"), paths))
    assert [info.path for info in store.list(f"{bucket}/many")] == paths
    store.delete(info.path for info in store.list(f"{bucket}/many"))
    assert list(store.list(f"{bucket}/many")) == []


def test_of_paths_in_slices_one_slice_is_held() -> None:
    paths = iter("abcde")
    sliced = slices(paths, 2)
    assert next(sliced) == ["a", "b"] and next(paths) == "c"
    assert list(sliced) == [["d", "e"]]


def test_deleting_passes_over_what_is_not_there(store: Store, bucket: str) -> None:
    store.put(f"{bucket}/a", b"x")
    store.delete([f"{bucket}/nothing", f"{bucket}/a"])
    store.delete([f"{bucket}/a"])
    assert list(store.list(bucket)) == []


@pytest.mark.parametrize("size", [0, 1, 12 * MIB + 1], ids=["empty", "small", "large"])
def test_a_local_file_is_put_whole_on_the_condition(
    store: Store, bucket: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("s3", "gcs"):
        monkeypatch.setattr(f"skybatch.formats.stores.{kind}.LARGEST_PUT", 6 * MIB)
    monkeypatch.setattr("skybatch.formats.stores.s3.PART_SIZE", 5 * MIB)
    monkeypatch.setattr("skybatch.formats.stores.gcs.CHUNK_SIZE", 5 * MIB)
    data = noise(size)
    (tmp_path / "file").write_bytes(data)
    info = store.put(f"{bucket}/a", tmp_path / "file", replaces=None, owner="me")
    assert store.read(f"{bucket}/a") == data and info.version == store.info(f"{bucket}/a").version
    assert store.put(f"{bucket}/a", tmp_path / "file", replaces=None, owner="me").version == info.version
    with pytest.raises(FileExistsError):
        store.put(f"{bucket}/a", tmp_path / "file", replaces=None, owner="you")
    assert list(store.abandoned(bucket)) == []


# Composing


def compose(
    store: Store, bucket: str, pieces: list[Piece | bytes], handle: str | None = None, owner: str = "me"
) -> Composer:
    composer = store.composer(f"{bucket}/out", scratch=f"{bucket}/scratch", owner=owner, handle=handle)
    for piece in pieces:
        if isinstance(piece, bytes):
            composer.add_bytes(piece)
        else:
            composer.add(piece)
    return composer


def whole(info: ObjectInfo) -> Piece:
    return Piece(info.path, 0, info.size, info.version)


def put_all(store: Store, bucket: str, sizes: list[int]) -> tuple[list[Piece], list[bytes]]:
    data = [noise(size, number) for number, size in enumerate(sizes)]
    return [whole(store.put(f"{bucket}/in/{n:03}", one)) for n, one in enumerate(data)], data


def test_small_and_large_pieces_become_one_object(store: Store, bucket: str) -> None:
    sizes = [6 * MIB, 10, 0, 1, 7 * MIB, 100_000, 100_000, 5 * MIB + 1, 33]
    pieces, data = put_all(store, bucket, sizes)
    composer = compose(store, bucket, [b"head", *pieces, b"foot"])
    composer.prepare()
    with pytest.raises(FileNotFoundError):
        store.info(f"{bucket}/out")
    info = composer.finish(replaces=None)
    assert store.read(f"{bucket}/out") == b"head" + b"".join(data) + b"foot"
    assert (info.size, info.version, info.owner) == (sum(sizes) + 8, store.info(f"{bucket}/out").version, "me")
    assert list(store.abandoned(bucket)) == []
    if store.conditional:
        assert composer.bytes_through_here < 12 * MIB


def test_pieces_may_be_parts_of_objects(store: Store, bucket: str) -> None:
    (one, two), (first, second) = put_all(store, bucket, [6 * MIB, 6 * MIB])
    cuts = [one._replace(length=100), one._replace(offset=100, length=one.length - 200), two._replace(offset=7)]
    cuts[2] = two._replace(offset=7, length=two.length - 7)
    composer = compose(store, bucket, [*cuts])
    composer.prepare()
    composer.finish()
    assert store.read(f"{bucket}/out") == first[:-100] + second[7:]


@pytest.mark.parametrize("parts", [[], [b""], [b"small"]], ids=["none", "empty", "small"])
def test_little_or_nothing_can_be_composed(store: Store, bucket: str, parts: list[bytes]) -> None:
    composer = compose(store, bucket, [*parts])
    composer.prepare()
    assert composer.finish(replaces=None).size == len(b"".join(parts))
    assert store.read(f"{bucket}/out") == b"".join(parts)
    assert list(store.abandoned(bucket)) == []
    other = compose(store, bucket, [*parts], owner="you")
    other.prepare()
    with pytest.raises(FileExistsError):
        other.finish(replaces=None)
    store.abort(f"{bucket}/out", other.handle)
    assert list(store.abandoned(bucket)) == []


def test_composing_goes_on_from_its_handle(store: Store, bucket: str) -> None:
    pieces, data = put_all(store, bucket, [100, 6 * MIB, 9 * MIB, 50])
    cut_short = compose(store, bucket, [*pieces[:3]])
    cut_short.prepare()  # a crash here: all but the last part is there
    again = compose(store, bucket, [*pieces], handle=cut_short.handle)
    again.prepare()
    assert again.finish(replaces=None).size == sum(map(len, data))
    assert store.read(f"{bucket}/out") == b"".join(data)
    if store.conditional:
        assert again.bytes_through_here <= 150
    assert list(store.abandoned(bucket)) == []


def test_composing_that_was_finished_is_recognised_by_its_handle(store: Store, bucket: str) -> None:
    pieces, data = put_all(store, bucket, [6 * MIB, 20])
    composer = compose(store, bucket, [*pieces])
    composer.prepare()
    made = composer.finish(replaces=None)
    again = compose(store, bucket, [*pieces], handle=composer.handle)
    again.prepare()
    assert again.finish(replaces=None).version == made.version
    assert store.read(f"{bucket}/out") == b"".join(data)


def test_composing_never_replaces_what_is_not_its_own(store: Store, bucket: str) -> None:
    pieces, _ = put_all(store, bucket, [6 * MIB, 20])
    composer = compose(store, bucket, [*pieces])
    composer.prepare()
    theirs = store.put(f"{bucket}/out", b"theirs")
    with pytest.raises(FileExistsError, match="something else"):
        composer.finish(replaces=None)
    assert store.read(f"{bucket}/out") == b"theirs"
    composer.finish(replaces=theirs.version)
    assert store.info(f"{bucket}/out").owner == "me"


@pytest.mark.parametrize("size", [1_000, 6 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("damage", ["altered", "short", "missing"])
def test_a_damaged_source_is_found(
    store: Store, bucket: str, damage: str, size: int, request: pytest.FixtureRequest
) -> None:
    if "moto" in request.node.callspec.id and damage == "altered" and size > MIB:
        pytest.skip("moto does not look at the condition of a copy")
    pieces, data = put_all(store, bucket, [6 * MIB, size, 6 * MIB])
    if damage == "altered":
        store.put(pieces[1].path, data[1][:-1] + b"?")
    elif damage == "short":
        info = store.put(pieces[1].path, data[1][:-1])
        pieces[1] = pieces[1]._replace(version=info.version)
    else:
        store.delete([pieces[1].path])
    with pytest.raises(SegmentDamaged, match=r"in/001|part 2"):
        compose(store, bucket, [*pieces]).prepare()
    with pytest.raises(FileNotFoundError):
        store.info(f"{bucket}/out")


def test_uploads_left_behind_are_found_and_aborted(store: Store, bucket: str) -> None:
    if not bucket.startswith("s3://"):
        pytest.skip("only S3 keeps what was uploaded and never finished")
    pieces, _ = put_all(store, bucket, [6 * MIB, 6 * MIB])
    handle = compose(store, bucket, [*pieces]).handle
    assert list(store.abandoned(bucket)) == list(store.abandoned(f"{bucket}/out")) == [(f"{bucket}/out", handle)]
    assert list(store.abandoned(f"{bucket}/ou")) == list(store.abandoned(f"{bucket}/other")) == []
    store.abort(f"{bucket}/out", handle)
    store.abort(f"{bucket}/out", handle)
    assert list(store.abandoned(bucket)) == []
    begun_anew = compose(store, bucket, [*pieces], handle=handle)
    assert begun_anew.handle != handle
    begun_anew.prepare()
    assert begun_anew.finish(replaces=None).size == 12 * MIB


@pytest.mark.full
def test_more_parts_than_an_upload_may_have_are_bundled(seaweedfs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skybatch.formats.stores.s3_composer.DIRECT_PARTS", 2)
    monkeypatch.setattr("skybatch.formats.stores.s3_composer.BUNDLED_PARTS", 3)
    store = stores.of(seaweedfs_bucket)
    pieces, data = put_all(store, seaweedfs_bucket, [5 * MIB] * 10 + [77])
    composer = compose(store, seaweedfs_bucket, [*pieces])
    composer.prepare()
    again = compose(store, seaweedfs_bucket, [*pieces], handle=composer.handle)
    again.prepare()
    again.finish(replaces=None)
    assert store.read(f"{seaweedfs_bucket}/out") == b"".join(data)
    assert len(list(store.list(f"{seaweedfs_bucket}/scratch"))) == 3
    assert again.bytes_through_here <= 77


@pytest.mark.full
def test_many_objects_are_composed_in_a_tree(gcs_bucket: str) -> None:
    store = stores.of(gcs_bucket)
    pieces, data = put_all(store, gcs_bucket, list(range(1, 33 * 32 + 5)))
    composer = compose(store, gcs_bucket, [*pieces])
    composer.prepare()
    composer.finish(replaces=None)
    assert store.read(f"{gcs_bucket}/out") == b"".join(data)
    assert composer.bytes_through_here == 0


def test_a_store_nobody_knows_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nosuch://"):
        stores.of("nosuch://bucket/a")


@pytest.mark.parametrize(("module", "scheme", "extra"), [("s3fs", "s3", "s3"), ("gcsfs", "gs", "gcs")])
def test_a_missing_extra_is_named(module: str, scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    stores.forget()
    with pytest.raises(UsageError, match=rf"pip install 'skybatch\[{extra}\]'"):
        stores.of(f"{scheme}://bucket/a")


def test_a_library_that_would_drop_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.__version__", "1.35.9")
    stores.forget()
    with pytest.raises(UsageError, match=r"botocore 1\.35\.9 knows no conditional writes"):
        stores.of("s3://bucket/a")
