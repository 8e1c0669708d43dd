"""Damaged or edited files: a sentence with file, field and remedy, or no harm."""

import json

import numpy as np
import pytest

from data_pipeline.codes import codes_info
from jukejax.errors import JukejaxError
from jukejax.model_dir import read_model_dir
from jukejax.sampling.job import Item, Job
from jukejax.sampling.sample_dir import SampleDir, read_job
from jukejax.stored import check_codes, read_arrays
from jukejax.text.labels import Vocabulary

MODEL = {"vqvae": "v", "priors": {"0": "p"}, "labels": "labels.json"}
LABELS = {"artists": ["unknown", "a"], "genres": ["unknown"]}
CODES = {"fingerprint": "f" * 16, "hops": [8, 32], "segment": 64, "codes": 16}


@pytest.fixture(scope="module")
def job_text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    job = Job("model", (Item(artist="a"),), seconds=30.0, levels=(1, 0), given=(0, 0))
    SampleDir(folder, job, 44_100, [{"level": 1}, {"level": 0}])
    return (folder / "job.json").read_text()


READERS = {
    "model.json": lambda folder: read_model_dir(folder),
    "labels.json": lambda folder: Vocabulary.load(folder / "labels.json"),
    "codes.json": lambda folder: codes_info(folder),
    "job.json": lambda folder: read_job(folder / "job.json"),
}


def text(name, job_text):
    values = {"model.json": MODEL, "labels.json": LABELS, "codes.json": CODES}
    return job_text if name == "job.json" else json.dumps(values[name])


@pytest.mark.parametrize("name", READERS)
def test_each_damaged_text_is_refused_by_name(tmp_path, name, job_text):
    whole = text(name, job_text)
    path = tmp_path / name
    path.write_text(whole)
    READERS[name](tmp_path)
    wrong = [b"", whole[: len(whole) // 2].encode(), b"\xff" + whole.encode(), b"[]", b"7", b"{}"]
    for data in (*wrong, b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(JukejaxError, match=name) as error:
            READERS[name](tmp_path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("name", READERS)
def test_turned_bytes_give_no_stack_trace(tmp_path, name, job_text):
    whole = text(name, job_text).encode()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / name).write_bytes(data)
        try:
            READERS[name](tmp_path)
        except JukejaxError:
            refused += 1
    assert refused > 60


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("model.json", "vqvae", 3),
        ("model.json", "priors", ["p"]),
        ("model.json", "labels", None),
        ("model.json", "vqvae", "a\0b"),
        ("model.json", "vqvae", "\ud800"),
        ("labels.json", "artists", ["\ud800"]),
        ("labels.json", "artists", "a"),
        ("codes.json", "hops", 8),
        ("codes.json", "hops", ["8"]),
        ("codes.json", "segment", "64"),
        ("codes.json", "segment", True),
        ("codes.json", "codes", 0),
        ("codes.json", "codes", 65_537),
        ("job.json", "request", []),
        ("job.json", "levels", [{}]),
        ("job.json", "levels", 2),
        ("job.json", "sample_rate", "44100"),
        ("job.json", "items", [3]),
        ("job.json", "title", 3),
        ("job.json", "seconds", "long"),
        ("job.json", "origin", {"continues": "a", "items": [0]}),
        ("job.json", "origin", {"continues": "a", "items": [], "at": 1.0}),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path, name, field, value, job_text):
    content = json.loads(text(name, job_text))
    without = {k: v for k, v in content.items() if k != field}
    optional = name == "job.json" and field != "request"  # a job by hand has only a request
    for changed in ({**content, field: value}, *([] if optional else [without])):
        (tmp_path / name).write_text(json.dumps(changed))
        sentence = (
            r"has no field|be by level|labels must be" if field in ("vqvae", "artists") else field
        )
        with pytest.raises(JukejaxError, match=f"{field}|{sentence}") as error:
            READERS[name](tmp_path)
        assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity", "9" * 30, "9" * 5000])
def test_a_number_out_of_range_is_refused(tmp_path, number):
    (tmp_path / "codes.json").write_text(json.dumps(CODES).replace("64", number))
    with pytest.raises(JukejaxError, match=r"codes.json is damaged: .*number"):
        codes_info(tmp_path)


def test_a_folder_that_was_begun_needs_all_of_its_job(tmp_path, job_text):
    (tmp_path / "job.json").write_text(json.dumps({"request": json.loads(job_text)["request"]}))
    read_job(tmp_path / "job.json")
    with pytest.raises(JukejaxError, match=r"job.json is damaged: it has no field 'items'"):
        SampleDir.open(tmp_path)


def test_a_turned_bit_in_arrays_is_refused_or_does_no_harm(tmp_path):
    path, codes = tmp_path / "codes.npz", np.arange(600, dtype=np.uint16)
    np.savez(path, codes=codes, done=np.array([600]))
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 3):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        try:
            arrays = read_arrays(path, ("codes", "done"), "remove it.")
            np.testing.assert_array_equal(arrays["codes"], codes)
            assert arrays["done"] == [600]
        except JukejaxError as error:
            assert str(path) in str(error) and str(error).endswith("remove it.")
            refused += 1
    assert refused > len(whole) / 3 * 0.8
    path.write_bytes(whole.replace(b"(600,)", b"(500,)"))  # NumPy alone reads 500 codes
    with pytest.raises(JukejaxError, match=r"the checksum of codes\.npy differs"):
        read_arrays(path, ("codes", "done"), "remove it.")


def test_an_array_that_is_missing_is_named(tmp_path):
    np.savez(tmp_path / "codes.npz", codes=np.zeros(3))
    with pytest.raises(JukejaxError, match=r"it has no array done.*; remove it"):
        read_arrays(tmp_path / "codes.npz", ("codes", "done"), "remove it.")


def test_codes_outside_the_codebook_are_refused():
    check_codes(np.array([0, 15]), 16, "here", "sample again")
    check_codes(np.zeros((2, 0), int), 16, "here", "sample again")
    for wrong in (16, -1):
        with pytest.raises(JukejaxError, match=r"here has codes from .* the codebook has 0 to 15"):
            check_codes(np.array([3, wrong]), 16, "here", "sample again")


def test_an_impossible_job_is_refused_with_the_name_of_its_file(tmp_path, job_text):
    (tmp_path / "job.json").write_text(job_text.replace('"redraws": 0', '"redraws": -1'))
    with pytest.raises(JukejaxError, match=r"job\.json: redraws is -1"):
        read_job(tmp_path / "job.json")


def test_a_job_with_half_of_a_character_is_refused(tmp_path, job_text):
    (tmp_path / "job.json").write_text(job_text.replace('"a"', '"\\ud800"'))
    with pytest.raises(JukejaxError, match=r"job.json has a half of a surrogate pair"):
        read_job(tmp_path / "job.json")
