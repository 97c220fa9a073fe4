"""A file per item: names stay within the folder and are one item's each; texts and images."""

from __future__ import annotations

import io
import json
import os
import secrets
import threading
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy
import PIL.Image
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from skybatch.errors import MissingBatches, OutputExists, ResultError, UsageError
from skybatch.formats import batchfiles, storage
from skybatch.formats.image import ImageWriter
from skybatch.formats.names import name_from
from skybatch.formats.text_writer import TextWriter

JOB = "20240101-000000-abcd"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../x", "'..' may be no part of it"),
        ("a/../../x", "'..' may be no part of it"),
        ("./x", "'.' may be no part of it"),
        ("/etc/passwd", "it is empty, absolute, or has an empty part"),
        ("", "it is empty, absolute, or has an empty part"),
        ("a//b", "it is empty, absolute, or has an empty part"),
        ("a/", "it is empty, absolute, or has an empty part"),
        ("s3://bucket/x", "it is empty, absolute, or has an empty part"),
        ("a\0b", "a control character"),
        ("a\nb", "a control character"),
        ("a\x1b[31m", "a control character"),
        ("\ud800", "a control character"),
        ("a\\b", "no backslash"),
        ("a::file", "no backslash and no '::'"),
        ("x" * 300, "a part of it is longer than 250 bytes"),
        ("é" * 130, "a part of it is longer than 250 bytes"),
        ("x/" * 500 + "x", "longer than 800 bytes"),
        ("a ", "a space"),
        (" a", "a space"),
        ("a /b", "a space"),
        ("a.", "nor end with a dot"),
        ("...", "nor end with a dot"),
        ("manifest.json", "that file says that the output is complete"),
        ("MANIFEST.json", "that file says that the output is complete"),
        (".sky_batch_tmp/x", "'.sky_batch_tmp' may be no part of it"),
        (None, "it must be text, not NoneType"),
        (True, "it must be text, not bool"),
        (1.5, "it must be text, not float"),
        (b"x", "it must be text, not bytes"),
    ],
)
def test_a_name_that_will_not_do_is_the_failure_of_its_item(name: Any, told: str, tmp_path: Path) -> None:
    writer = TextWriter(str(tmp_path / "out"), name_column="name")
    with pytest.raises(ResultError) as caught:
        writer.upload_batch([{"text": "x", "name": name}], 4, 4, JOB)
    assert str(caught.value).startswith("item 4, key 'name': ") and told in str(caught.value)
    assert len(str(caught.value)) < 200 and caught.value.item == 4
    assert list(tmp_path.rglob("*.txt")) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(st.sampled_from(list("a./\\ \0~:*é\U0001f600")), max_size=8) | st.text(max_size=5))
@example(name="~")
@example(name="~root/x")
@example(name="%2e%2e/x")
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    try:
        taken = name_from({"name": name}, "name", 0)
    except ResultError:
        return
    assert taken == name
    folder = tmp_path / (name.encode().hex() or "none")  # of its own: other examples leave folders behind
    assert os.path.realpath(folder / name).startswith(f"{folder}/")
    TextWriter(str(folder), name_column="name").upload_batch([{"text": "x", "name": name}], 0, 0, JOB)
    assert (folder / name).read_text() == "x"


def test_names_may_have_folders_and_be_numbers(tmp_path: Path) -> None:
    writer = TextWriter(str(tmp_path / "out/"), column="t", name_column="name")
    writer.upload_batch([{"t": "é\r\n", "name": "a/b/c.md"}, {"t": "", "name": 17}], 0, 1, JOB)
    assert (tmp_path / "out/a/b/c.md").read_bytes() == "é\r\n".encode()
    assert (tmp_path / "out/17").read_bytes() == b""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x", "x"),
        ("x", "X"),
        ("straße", "STRASSE"),
        ("é", unicodedata.normalize("NFD", "é")),
        (unicodedata.normalize("NFD", "É"), "é"),
        ("17", 17),
        ("a/b", "A/b"),
    ],
)
def test_twins_do_not_overwrite_each_other(one: Any, other: Any, tmp_path: Path) -> None:
    writer = TextWriter(str(tmp_path / "out"), name_column="name")
    first, second = {"text": "first", "name": one}, {"text": "second", "name": other}
    writer.upload_batch([first], 0, 0, JOB)
    with pytest.raises(ResultError, match=r"item 7, key 'name': .* is the name of item 0's file already") as caught:
        writer.upload_batch([second], 7, 7, JOB)
    assert caught.value.item == 7
    with pytest.raises(ResultError, match=r"item 1, key 'name': .* is the name of item 0's file already"):
        writer.upload_batch([first, second], 0, 1, JOB)
    writer.upload_batch([{**first, "text": "again"}], 0, 0, JOB)
    assert [path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["again"]
    writer.cleanup(JOB)
    assert not (tmp_path / ".sky_batch_tmp").exists()


def race(path: str) -> None:
    """Eight items want one name: one gets it, and the file is its own."""
    writer = TextWriter(path, name_column="name")
    barrier, won, lost = threading.Barrier(8), [], []

    def write(item: int) -> None:
        barrier.wait()
        try:
            writer.upload_batch([{"text": str(item), "name": "same"}], item, item, JOB)
            won.append(item)
        except ResultError as error:
            lost.append(error.item)

    threads = [threading.Thread(target=write, args=(item,)) for item in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(item).encode() for item in won] == [storage.read_bytes(f"{path}/same")]
    assert sorted(won + lost) == list(range(8))
    writer.upload_batch([{"text": "again", "name": "same"}], won[0], won[0], JOB)
    assert storage.read_bytes(f"{path}/same") == b"again"


def test_of_many_at_once_one_gets_the_name(tmp_path: Path) -> None:
    race(str(tmp_path / "out"))


@pytest.mark.full
@pytest.mark.parametrize("bucket", ["moto_bucket", "gcs_bucket"])
def test_of_many_at_once_one_gets_the_name_in_an_object_store(bucket: str, request: pytest.FixtureRequest) -> None:
    race(f"{request.getfixturevalue(bucket)}/out")


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"]])
def test_a_file_where_a_folder_is_needed_is_the_failure_of_its_item(names: list[str], tmp_path: Path) -> None:
    writer = TextWriter(str(tmp_path / "out"), name_column="name")
    with pytest.raises(ResultError, match=r"item 1, key 'name': .* it needs a folder where a file is"):
        writer.upload_batch([{"text": "x", "name": name} for name in names], 0, 1, JOB)


# Files that are not the job's


def as_job(writer: TextWriter, text: str, start: int, job_id: str, name: str = "x") -> None:
    """Write one result as the worker of a job does that may not overwrite."""
    batchfiles.set_attempt(secrets.token_hex(6), overwrite=False)
    try:
        writer.upload_batch([{"text": text, "name": name}], start, start, job_id)
    finally:
        batchfiles.set_attempt("0")


def keeps_strangers(path: str, name_column: str | None) -> None:
    """What others have put there stays; what the job itself has put there before is replaced."""
    writer = TextWriter(path, name_column=name_column)
    file = f"{path}/{'x' if name_column else '00000003.txt'}"
    as_job(writer, "first try", 3, JOB)
    as_job(writer, "second try", 3, JOB)
    assert storage.read_bytes(file) == b"second try"
    for stranger in ("another job's", "anybody's"):
        with pytest.raises(ResultError, match="a file of that name is there and is not this job's") as caught:
            as_job(writer, "mine", 3, "20240101-000000-ffff")
        assert caught.value.item == 3
        storage.write_bytes(file, stranger.encode())
    assert storage.read_bytes(file) == b"anybody's"
    writer.upload_batch([{"text": "allowed", "name": "x"}], 3, 3, JOB)  # without a job, or with `overwrite`
    assert storage.read_bytes(file) == b"allowed"


@pytest.mark.parametrize("name_column", [None, "name"])
def test_a_file_that_is_not_the_job_s_is_not_replaced(name_column: str | None, tmp_path: Path) -> None:
    keeps_strangers(str(tmp_path / "out"), name_column)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x" if name_column else "00000003.txt"]


@pytest.mark.parametrize("bucket", ["moto_bucket", pytest.param("gcs_bucket", marks=pytest.mark.full)])
def test_an_object_that_is_not_the_job_s_is_not_replaced(bucket: str, request: pytest.FixtureRequest) -> None:
    keeps_strangers(f"{request.getfixturevalue(bucket)}/out", None)


def test_files_of_the_job_are_known_by_a_time_that_is_past(tmp_path: Path) -> None:
    as_job(TextWriter(str(tmp_path)), "x", 0, JOB)
    age = time.time() - (tmp_path / "00000000.txt").stat().st_mtime
    assert 0 <= age < 60


def test_a_name_that_leads_out_by_a_symbolic_link_is_the_failure_of_its_item(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "within").symlink_to(tmp_path / "out")
    writer = TextWriter(str(tmp_path / "out"), name_column="name")
    for name in ("link/x", "link/deeper/x"):
        with pytest.raises(ResultError, match=r"item 5, key 'name': .* leads out of the output's folder") as caught:
            writer.upload_batch([{"text": "x", "name": name}], 5, 5, JOB)
        assert caught.value.item == 5
    assert list((tmp_path / "elsewhere").iterdir()) == []
    writer.upload_batch([{"text": "x", "name": "within/a"}], 6, 6, JOB)
    assert (tmp_path / "out" / "a").read_text() == "x"


# By hand


def reduced_by_hand(path: str, name_column: str | None) -> None:
    """Again and again, but over nobody else's manifest."""
    writer = TextWriter(path, name_column=name_column)
    with pytest.raises(MissingBatches, match="nothing was written"):
        writer.reduce_results(JOB)
    for item in (0, 2):
        writer.upload_batch([{"text": "x", "name": str(item)}], item, item, JOB)
    with pytest.raises(MissingBatches, match="the file of item 1 is missing"):
        writer.reduce_results(JOB)
    writer.upload_batch([{"text": "x", "name": "one"}], 1, 1, JOB)
    for _ in range(2):
        writer.reduce_results(JOB)
        assert json.loads(storage.read_bytes(writer.commit_path()))["items"] == 3
    storage.write_bytes(writer.commit_path(), b"foreign")
    with pytest.raises(OutputExists, match="not from an earlier reduce of this job"):
        writer.reduce_results(JOB)
    assert storage.read_bytes(writer.commit_path()) == b"foreign"


@pytest.mark.parametrize("name_column", [None, "name"])
def test_a_manifest_by_hand(name_column: str | None, tmp_path: Path) -> None:
    reduced_by_hand(str(tmp_path / "out"), name_column)


@pytest.mark.full
@pytest.mark.parametrize("name_column", [None, "name"])
def test_a_manifest_by_hand_in_a_store(name_column: str | None, gcs_bucket: str) -> None:
    reduced_by_hand(f"{gcs_bucket}/out", name_column)


def test_texts(tmp_path: Path) -> None:
    writer = TextWriter(str(tmp_path / "out"))
    writer.upload_batch([{"text": "one"}, {"text": "two"}], 8, 9, JOB)
    assert (tmp_path / "out/00000009.txt").read_text() == "two"
    with pytest.raises(MissingBatches, match="the file of item 0 is missing"):
        writer.reduce_results(JOB)
    assert not Path(writer.commit_path()).exists()
    writer.reduce_results(JOB, partial=True)
    assert json.loads(Path(writer.commit_path()).read_bytes()) == {
        "format": "skybatch.texts/1",
        "names": "%08d.txt",
        "column": "text",
        "items": 2,
    }
    for value, told in [(5, "not text but int"), (None, "not text but NoneType"), ("\ud800", "surrogates not allowed")]:
        with pytest.raises(ResultError, match=f"item 3, key 'text': .*{told}"):
            writer.upload_batch([{"text": value}], 3, 3, JOB)
    with pytest.raises(ResultError, match="item 3: the result has no 'text'; did you mean 'texts'"):
        writer.upload_batch([{"texts": "x"}], 3, 3, JOB)


# Images


def drawn(mode: str = "RGB", size: tuple[int, int] = (5, 4)) -> PIL.Image.Image:
    """A small image that is not all of one colour."""
    return PIL.Image.effect_noise(size, 40).convert(mode)


def encoded(image: PIL.Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form)
    return buffer.getvalue()


def format_of(file: Path) -> str | None:
    with PIL.Image.open(file) as image:
        return image.format


def test_images_are_png_by_index(tmp_path: Path) -> None:
    writer, image = ImageWriter(str(tmp_path / "out")), drawn()
    writer.check()
    writer.upload_batch([{"image": image}, {"image": numpy.asarray(image)}], 0, 1, JOB)
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["00000000.png", "00000001.png"]
    assert files[0].read_bytes() == files[1].read_bytes() == encoded(image, "png")
    writer.reduce_results(JOB)
    manifest = {"format": "skybatch.images/1", "names": "%08d.png", "column": "image", "items": 2}
    assert json.loads(Path(writer.commit_path()).read_bytes()) == manifest


@pytest.mark.parametrize("form", ["jpeg", "webp", "png"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_usual_mode_has_a_file_in_every_format(form: str, mode: str, tmp_path: Path) -> None:
    if (form, mode) == ("png", "CMYK"):
        pytest.skip("PNG has none")
    ImageWriter(str(tmp_path), format=form).upload_batch([{"image": drawn(mode)}], 0, 0, JOB)
    (file,) = tmp_path.glob("0*")
    assert file.suffix == {"jpeg": ".jpg"}.get(form, f".{form}")
    with PIL.Image.open(file) as image:
        assert (image.format, image.size) == (form.upper(), (5, 4))
        assert form != "png" or image.mode == mode


def test_names_say_the_format_where_none_is_given(tmp_path: Path) -> None:
    names = ["a.png", "b.JPG", "c.jpeg", "d.webp", "e", "f.tiff"]
    writer = ImageWriter(str(tmp_path / "out"), name_column="name")
    writer.upload_batch([{"image": drawn(), "name": name} for name in names], 0, 5, JOB)
    found = {file.name: format_of(file) for file in (tmp_path / "out").iterdir()}
    forms = ["PNG", "JPEG", "JPEG", "WEBP", "PNG", "PNG"]
    assert found == dict(zip(["a.png", "b.JPG", "c.jpeg", "d.webp", "e.png", "f.tiff.png"], forms, strict=True))
    with pytest.raises(ResultError, match=r"'e\.png' is the name of item 4's file already"):
        writer.upload_batch([{"image": drawn(), "name": "e.png"}], 9, 9, JOB)


def test_quality_and_encoded_bytes(tmp_path: Path) -> None:
    image, out = drawn(size=(64, 64)), tmp_path / "out"
    for quality in (10, 95):
        ImageWriter(str(out), format="jpeg", quality=quality).upload_batch([{"image": image}], quality, quality, JOB)
    assert (out / "00000010.jpg").stat().st_size < (out / "00000095.jpg").stat().st_size
    jpeg = encoded(image, "jpeg")
    ImageWriter(str(out), format="jpeg", quality=1).upload_batch([{"image": jpeg}], 0, 0, JOB)
    assert (out / "00000000.jpg").read_bytes() == jpeg  # as it is: no loss is added
    ImageWriter(str(out)).upload_batch([{"image": jpeg}], 1, 1, JOB)
    assert format_of(out / "00000001.png") == "PNG"


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({}, "the result has no image under 'image'"),
        ({"images": 1}, "the result has no image under 'image'; did you mean 'images'?"),
        ({"image": None}, "the result has no image under 'image'"),
        ({"image": "x.png"}, "not an image but str"),
        ({"image": b"not one"}, "cannot identify image file"),
        ({"image": encoded(drawn(), "bmp")[:70]}, "truncated"),
        ({"image": drawn("CMYK")}, "cannot write mode CMYK as PNG"),
        ({"image": numpy.zeros((2, 2))}, "an image array must be of uint8, not float64"),
        ({"image": numpy.zeros((2, 2, 7), "u1")}, "Cannot handle this data type"),
    ],
)
def test_what_is_no_image_is_the_failure_of_its_item(result: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError) as caught:
        ImageWriter(str(tmp_path)).upload_batch([result], 6, 6, JOB)
    assert caught.value.item == 6 and str(caught.value).startswith("item 6") and told in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"format": "jpg"}, "format must be one of png, jpeg, webp; not 'jpg'; did you mean 'jpeg'?"),
        ({"quality": 0}, "quality must be 1 to 100"),
        ({"quality": True}, "quality must be 1 to 100"),
    ],
)
def test_fields_that_make_no_sense(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        ImageWriter("out", **fields).check()
    assert told in str(caught.value)
