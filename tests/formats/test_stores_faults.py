"""Stores in bad weather: throttled, reset, stalled, cut off, replies lost, credentials refused. Through a proxy."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skybatch.errors import SegmentDamaged, StorageDenied, StorageFailed
from skybatch.formats import storage, stores
from skybatch.formats.stores import Piece
from skybatch.formats.stores.parts import MIB
from skybatch.formats.stores.s3 import UPLOADS_AT_ONCE, S3Store
from tests.formats.test_stores import compose, noise, put_all
from tests.tools import servers
from tests.tools.proxy import Cut, CutReply, Fault, LoseReply, Proxy, Request, Reset, Rule, Stall, Status, running

pytestmark = pytest.mark.full  # bad weather takes its time

KINDS = [
    pytest.param("moto", id="moto"),
    pytest.param("seaweedfs", id="seaweedfs", marks=pytest.mark.full),
    pytest.param("fake_gcs", id="gcs", marks=pytest.mark.full),
]


FAULTS = [
    pytest.param(Status(503), id="503"),
    pytest.param(Status(429, "TooManyRequests"), id="429", marks=pytest.mark.full),
    pytest.param(Reset(), id="reset"),
    pytest.param(Cut(0.6), id="cut"),
]


@pytest.fixture(params=KINDS)
def weather(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a store, and a fresh bucket there that is reached through it. Waits are short."""
    monkeypatch.setattr("skybatch.formats.stores.retrying.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("skybatch.formats.stores.retrying.LONGEST_WAIT_S", 0.05)
    monkeypatch.setenv("SKYBATCH_STORAGE_TIMEOUT_S", "1")
    fixture = "gcs_bucket" if request.param == "fake_gcs" else f"{request.param}_bucket"
    bucket: str = request.getfixturevalue(fixture)
    use = servers.use_gcs if request.param == "fake_gcs" else servers.use_s3
    with running(request.getfixturevalue(request.param)) as proxy:
        use(proxy.url, monkeypatch)
        yield proxy, bucket


def first(count: int, fault: Fault, method: str = "", part_of_query: str = "") -> Rule:
    """A rule that fails the first `count` requests of a kind."""
    left = [None] * count

    def rule(request: Request) -> Fault | None:
        if left and request.method.startswith(method) and part_of_query in request.query:
            left.pop()
            return fault
        return None

    return rule


@pytest.mark.parametrize("fault", FAULTS)
def test_throttling_resets_and_cuts_only_slow_down(weather: tuple[Proxy, str], fault: Fault) -> None:
    proxy, bucket = weather
    store = stores.of(bucket)
    data = noise(300_000)
    for do, expected in (
        (lambda: store.put(f"{bucket}/a", data, replaces=None, owner="me").size, len(data)),
        (lambda: store.read(f"{bucket}/a"), data),
        (lambda: store.info(f"{bucket}/a").owner, "me"),
        (lambda: [info.size for info in store.list(bucket)], [len(data)]),
        (lambda: store.delete([f"{bucket}/a"]), None),
    ):
        proxy.rule = first(3, fault)
        before = proxy.faults()
        assert do() == expected
        assert proxy.faults() == before + 3


def test_an_answer_that_breaks_off_is_asked_for_again(weather: tuple[Proxy, str]) -> None:
    proxy, bucket = weather
    store = stores.of(bucket)
    data = noise(700_000)
    store.put(f"{bucket}/a", data)
    proxy.rule = first(2, CutReply(0.6), "GET")
    assert store.read(f"{bucket}/a") == data
    proxy.rule = first(2, CutReply(0.6), "GET")
    assert store.read(f"{bucket}/a", 100, 500_000) == data[100:500_000]
    proxy.rule = first(1, CutReply(0.6), "GET")
    assert [info.size for info in store.list(bucket)] == [len(data)]
    assert proxy.faults() == 5


@pytest.mark.full
def test_a_stall_ends_and_is_tried_again(weather: tuple[Proxy, str]) -> None:
    proxy, bucket = weather
    store = stores.of(bucket)
    proxy.rule = first(1, Stall())
    store.put(f"{bucket}/a", b"data", replaces=None, owner="me")
    proxy.rule = first(1, Stall())
    assert store.read(f"{bucket}/a") == b"data"
    assert proxy.faults() == 2


@pytest.mark.full
def test_composing_goes_through_bad_weather(weather: tuple[Proxy, str]) -> None:
    proxy, bucket = weather
    store = stores.of(bucket)
    pieces, data = put_all(store, bucket, [6 * MIB, 20, 6 * MIB])

    def rule(request: Request) -> Fault | None:
        return {0: Status(503), 3: Reset(), 5: Cut(0.5)}.get((request.number - begin) % 7)

    begin = len(proxy.requests)
    proxy.rule = rule
    composer = compose(store, bucket, [b"head", *pieces])
    composer.prepare()
    composer.finish(replaces=None)
    assert store.read(f"{bucket}/out") == b"head" + b"".join(data)
    assert proxy.faults() >= 2


def test_a_put_whose_reply_was_lost_is_recognised(weather: tuple[Proxy, str]) -> None:
    proxy, bucket = weather
    store = stores.of(bucket)
    proxy.rule = first(1, LoseReply(), "P")
    info = store.put(f"{bucket}/a", b"mine", replaces=None, owner="me")
    assert proxy.faults() == 1 and info.owner == "me" and store.read(f"{bucket}/a") == b"mine"
    proxy.rule = first(1, LoseReply(), "P")
    again = store.put(f"{bucket}/a", b"mine too", replaces=info.version, owner="me again")
    assert again.owner == "me again" and store.read(f"{bucket}/a") == b"mine too"


def test_a_finish_whose_reply_was_lost_is_recognised(weather: tuple[Proxy, str]) -> None:
    proxy, bucket = weather
    store = stores.of(bucket)
    pieces, data = put_all(store, bucket, [6 * MIB, 6 * MIB])
    composer = compose(store, bucket, [*pieces])
    composer.prepare()
    proxy.rule = first(1, LoseReply(), "POST")
    made = composer.finish(replaces=None)
    assert proxy.faults() == 1 and made.owner == "me"
    assert store.read(f"{bucket}/out") == b"".join(data)
    assert list(store.abandoned(bucket)) == []


@pytest.mark.full
def test_a_file_in_parts_survives_lost_replies(
    weather: tuple[Proxy, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skybatch.formats.stores.s3.LARGEST_PUT", 5 * MIB)
    monkeypatch.setattr("skybatch.formats.stores.s3.PART_SIZE", 5 * MIB)
    proxy, bucket = weather
    store = stores.of(bucket)
    data = noise(11 * MIB)
    (tmp_path / "file").write_bytes(data)
    proxy.rule = first(2, LoseReply(), "P")
    store.put(f"{bucket}/a", tmp_path / "file", replaces=None, owner="me")
    assert proxy.faults() == 2 and store.read(f"{bucket}/a") == data


@pytest.mark.full
def test_an_upload_that_is_always_cut_leaves_no_object(
    weather: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, bucket = weather
    monkeypatch.setenv("SKYBATCH_STORAGE_PATIENCE_S", "0.5")
    proxy.rule = lambda request: Cut(0.6) if request.method in ("PUT", "POST") else None
    with pytest.raises(StorageFailed, match=f"{bucket}/a: gave up after 0.5 s"):
        stores.of(bucket).put(f"{bucket}/a", noise(1_000_000), replaces=None, owner="me")
    proxy.rule = lambda request: None
    assert list(stores.of(bucket).list(bucket)) == []


@pytest.mark.full
def test_what_others_put_meanwhile_is_untouched(weather: tuple[Proxy, str]) -> None:
    proxy, bucket = weather
    store = stores.of(bucket)
    store.put(f"{bucket}/a", b"theirs", owner="they")
    for fault in (Status(503), Reset()):
        proxy.rule = first(2, fault, "P")
        with pytest.raises(FileExistsError, match="left as it is"):
            store.put(f"{bucket}/a", b"mine", replaces=None, owner="me")
    assert store.read(f"{bucket}/a") == b"theirs"


@pytest.mark.full
def test_patience_ends_in_a_failure_that_names_the_object(
    weather: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, bucket = weather
    monkeypatch.setenv("SKYBATCH_STORAGE_PATIENCE_S", "0.3")
    proxy.rule = lambda request: Status(503)
    with pytest.raises(StorageFailed, match=f"{bucket}/a: gave up .*SKYBATCH_STORAGE_PATIENCE_S") as caught:
        stores.of(bucket).read(f"{bucket}/a")
    assert not isinstance(caught.value, StorageDenied) and caught.value.exit_code == 75


@pytest.mark.full
def test_a_signal_does_not_wait_for_a_store_that_is_away(weather: tuple[Proxy, str]) -> None:
    proxy, bucket = weather
    if bucket.startswith("gs://"):
        pytest.skip("composing on GCS has no threads of its own")
    store = stores.of(bucket)
    assert isinstance(store, S3Store)
    pieces, _ = put_all(store, bucket, [5 * MIB, 5 * MIB])
    interrupt = iter([True])

    def away(request: Request) -> Fault | None:
        if "partNumber" in request.query:
            if next(interrupt, False):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return Status(503)
        return None

    proxy.rule = away
    with pytest.raises(KeyboardInterrupt):
        compose(store, bucket, [*pieces]).prepare()
    assert_nothing_runs(store)


@pytest.mark.full
def test_a_composer_that_is_closed_ends_the_uploads_that_run(weather: tuple[Proxy, str]) -> None:
    proxy, bucket = weather
    if bucket.startswith("gs://"):
        pytest.skip("composing on GCS has no threads of its own")
    store = stores.of(bucket)
    assert isinstance(store, S3Store)
    pieces, _ = put_all(store, bucket, [5 * MIB, 5 * MIB, 5 * MIB])
    proxy.rule = lambda request: Status(503) if "partNumber" in request.query else None
    composer = compose(store, bucket, [*pieces])
    composer.close()
    assert_nothing_runs(store)
    store.abort(f"{bucket}/out", composer.handle)
    assert list(store.abandoned(bucket)) == []


def assert_nothing_runs(store: S3Store) -> None:
    barrier = threading.Barrier(UPLOADS_AT_ONCE)
    free = [store.uploads.submit(barrier.wait) for _ in range(UPLOADS_AT_ONCE)]
    for one in free:  # threads that still tried would not come to meet the others
        one.result(timeout=20)


@pytest.mark.parametrize("status", [403, pytest.param(401, marks=pytest.mark.full)])
def test_refused_credentials_are_told_at_once(
    weather: tuple[Proxy, str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, bucket = weather
    monkeypatch.setenv("SKYBATCH_STORAGE_TIMEOUT_S", "20")  # a late answer is asked for again
    stores.forget()
    proxy.rule = lambda request: Status(status, "AccessDenied")
    for do in (lambda: stores.of(bucket).put(f"{bucket}/a", b"x"), lambda: stores.of(bucket).info(f"{bucket}/a")):
        before = len(proxy.requests)
        with pytest.raises(StorageDenied, match="credentials"):
            do()
        assert len(proxy.requests) == before + 1


@pytest.mark.full
def test_a_wrong_secret_is_denied_and_not_told(seaweedfs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canary := "a-canary-that-no-message-may-show")
    stores.forget()
    for do in _every_call(seaweedfs_bucket):
        with pytest.raises(StorageDenied) as caught:
            do()
        told = "".join(traceback.format_exception(caught.value))
        assert canary not in told and servers.ACCESS_KEY not in told
        assert caught.value.__cause__ is None and caught.value.__context__ is None
    stores.forget()


@pytest.mark.full
def test_no_secret_in_what_a_failing_store_says(
    weather: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that repeats the request's credentials in its error, as some do."""
    proxy, bucket = weather
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers.SECRET_KEY)
    monkeypatch.setenv("SKYBATCH_STORAGE_PATIENCE_S", "0.1")
    for status in (400, 403, 503):
        talk = f"Unwanted {servers.ACCESS_KEY} {servers.SECRET_KEY} Authorization: Bearer ya29.canary-token"
        proxy.rule = lambda request, status=status, talk=talk: Status(status, talk)  # type: ignore[misc]
        for do in _every_call(bucket):
            with pytest.raises((StorageFailed, SegmentDamaged)) as caught:
                do()
            told = "".join(traceback.format_exception(caught.value)) + caplog.text
            for secret in (servers.ACCESS_KEY, servers.SECRET_KEY, "ya29.canary-token"):
                assert secret not in told
    assert "canary" not in caplog.text


def _every_call(bucket: str) -> list[Callable[[], object]]:
    store, path = stores.of(bucket), f"{bucket}/a"
    return [
        lambda: store.info(path),
        lambda: store.read(path),
        lambda: list(store.list(bucket)),
        lambda: store.put(path, b"x"),
        lambda: store.delete([path]),
        lambda: compose(store, bucket, [b"x", Piece(path, 0, 6 * MIB, "1"), Piece(path, 9, 1)]).prepare(),
        lambda: storage.write_bytes(path, b"x"),
        lambda: storage.read_bytes(path),
    ]
