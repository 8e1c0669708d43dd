"""PyTorch's files: what is written is read back, and what is hostile or damaged is refused."""

import io
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jukejax.errors import InteropError
from jukejax.interop import pickles, torch_files
from jukejax.interop.pickles import Storage, TensorRecord
from jukejax.interop.tensors import Source

GOLDEN = Path(__file__).parents[1] / "golden" / "data"
SETTINGS = {
    "width": 32, "big": -(2**40), "ratio": 0.25, "name": "é", "none": None, "on": True,
    "downs": (3, 2), "empty": (),
}  # fmt: skip


def legacy(value, storages, lengths=None, magic=0x1950A86A20F9469CFC6C):
    """A file of the legacy format; `storages` are arrays by key."""
    head = (magic, 1001, {"little_endian": True, "protocol_version": 1001}, value, [*storages])
    out = b"".join(map(pickles.write, head))
    for key, array in storages.items():
        length = (lengths or {}).get(key, array.size)
        out += struct.pack("<q", length) + array.tobytes()
    return out


def zipped(data, storages, compression=zipfile.ZIP_STORED, extra=()):
    """A file of the zip format."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("a/data.pkl", data)
        for key, array in storages.items():
            archive.writestr(f"a/data/{key}", array.tobytes())
        for name, content in extra:
            archive.writestr(name, content)
    return out.getvalue()


def record(shape, strides, offset=0, numel=6, key="0", dtype="<f4"):
    return TensorRecord(Storage(key, dtype, numel), offset, shape, strides)


NUMBERS = np.arange(6, dtype="<f4")
GOOD = {"model": {"w": record((2, 3), (3, 1))}, "step": 7}


def assert_refused(tmp_path, content, match):
    """Reading `content` raises a sentence that begins with the file's name."""
    file = tmp_path / "file.pth.tar"
    file.write_bytes(content)
    with pytest.raises(InteropError, match=match) as error:
        torch_files.read(file)
    assert str(error.value).startswith(str(file))


# --- round trip -----------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    kept = {
        "float": rng.normal(size=(2, 3, 4)).astype("<f4"),
        "half": rng.normal(size=(5,)).astype("<f2"),
        "whole": rng.integers(-9, 9, (3, 2)).astype("<i8"),
        "scalar": np.float32(2.5).reshape(()),
        "nothing": np.zeros((0, 4), "<f4"),
    }
    sources = {n: Source(a.shape, a.dtype.str, lambda a=a: a) for n, a in kept.items()}
    torch_files.write(tmp_path / "x.pth", sources, {"tied": "float"}, SETTINGS, 12)
    found = torch_files.read(tmp_path / "x.pth")
    assert (found.hps, found.step) == (SETTINGS, 12)
    assert found.tensors.keys() == kept.keys() | {"tied"}
    assert found.tensors["tied"] == found.tensors["float"]
    for name, array in kept.items():
        tensor = found.tensors[name]
        assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(tensor.read(), array)


def test_views_and_prefixes(tmp_path):
    model = {
        "module.t": record((3, 2), (1, 3)),
        "module.row": record((3,), (1,), offset=3),
        "module.column": record((2,), (3,), offset=2),
    }
    (tmp_path / "x").write_bytes(legacy({"model": model}, {"0": NUMBERS}))
    found = torch_files.read(tmp_path / "x").tensors
    np.testing.assert_array_equal(found["t"].read(), NUMBERS.reshape(2, 3).T)
    np.testing.assert_array_equal(found["row"].read(), [3, 4, 5])
    np.testing.assert_array_equal(found["column"].read(), [2, 5])


def test_plain_protocol_2_pickles_are_understood():
    value = {"a": [1, 300, 70_000, -5, 2**70], "b": (None, True, 0.5, ("x", ())), "c": {}}
    assert pickles.read(io.BytesIO(pickle.dumps(value, 2)), "x") == value
    assert pickles.read(io.BytesIO(pickle.dumps(value, 4)), "x") == value
    assert pickle.loads(pickles.write(value)) == value


def test_reference_files_open():
    for name, count in (("vqvae_small", 382), ("prior_nolabels", 40)):
        found = torch_files.read(GOLDEN / f"{name}.pth.tar")
        assert len(found.tensors) == count
        assert not any(n.startswith("module.") for n in found.tensors)


# --- refusals -------------------------------------------------------------------------------------


class Runs:
    """Unpickled by `pickle`, runs a command that leaves a mark."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_code_in_a_pickle_is_not_run(tmp_path, protocol, kind):
    evil = pickle.dumps({"model": Runs(tmp_path / "mark")}, protocol)
    head = b"".join(map(pickles.write, (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})))
    content = head + evil if kind == "legacy" else zipped(evil, {})
    assert_refused(tmp_path, content, "system.*Nothing of it was executed")
    assert [p.name for p in tmp_path.iterdir()] == ["file.pth.tar"]


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"(X\x01\x00\x00\x001ibuiltins\neval\n.",
        b"cposix\nsystem\n.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(X\x01\x00\x00\x001tR.",
        b"ccollections\nOrderedDict\n}b.",
        b"ccollections\nOrderedDict\n(](K\x01K\x02eetR.",
        b"\x8c\x08builtins\x8c\x04eval\x93.",
        b"]]\x93.",
        b"}(]K\x01u.",  # a list as a key
        b"K\x01r\xff\xff\xff\x7f",  # the memo's slot 2**31
        b"h\x05.",
        b"tR.",
        b".",
        b"Q.",
        b"}K\x01s.",
        b"\x82\x01.",
        b"\x8a\xff",
        b"",
    ],
)
def test_other_programs_are_refused(tmp_path, program):
    assert_refused(tmp_path, zipped(b"\x80\x02" + program, {}), ".")


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((7,), (1,), 0),  # more than there is
        ((2, 3), (4, 1), 0),  # strides lead out
        ((2, 3), (3, 1), 1),  # so does the offset
        ((10**6, 10**6), (0, 0), 0),  # a bomb: one number, a million million times
        ((-1,), (1,), 0),
        ((2, 3), (3,), 0),
        ((2, 3), (-3, 1), 3),
        ((2.0,), (1,), 0),
        ((1,) * 9, (1,) * 9, 0),
    ],
)
def test_shapes_that_lie_are_refused(tmp_path, shape, strides, offset):
    value = {"model": {"w": record(shape, strides, offset)}}
    assert_refused(tmp_path, legacy(value, {"0": NUMBERS}), "tensor")
    assert_refused(tmp_path, zipped(pickles.write(value), {"0": NUMBERS}), "tensor")


def test_storages_that_lie_are_refused(tmp_path):
    huge = {"model": {"w": record((2, 3), (3, 1), numel=2**40)}}
    assert_refused(tmp_path, legacy(huge, {"0": NUMBERS}), "cut short")
    assert_refused(tmp_path, zipped(pickles.write(huge), {"0": NUMBERS}), "should have")
    assert_refused(tmp_path, legacy(GOOD, {"0": NUMBERS}, {"0": 2**40}), "claims 6")
    assert_refused(tmp_path, zipped(pickles.write(GOOD), {}), "but has none")
    assert_refused(tmp_path, legacy(GOOD, {"1": NUMBERS}), "storages does not match")
    two = {"model": {"a": record((6,), (1,)), "b": record((3,), (1,), numel=3)}}
    assert_refused(tmp_path, legacy(two, {"0": NUMBERS}), "two sizes")


@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_every_cut_is_noticed(tmp_path, kind):
    whole = (
        legacy(GOOD, {"0": NUMBERS}) if kind == "legacy"
        else zipped(pickles.write(GOOD), {"0": NUMBERS})
    )  # fmt: skip
    file = tmp_path / "file"
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(InteropError):
            torch_files.read(file)


@pytest.mark.parametrize("kind", ["legacy", "zip"])
def test_damage_anywhere_is_refused_or_harmless(tmp_path, kind):
    """Bytes changed, cut out and put in at random: a sentence or tensors, never another error."""
    value = GOOD | {"hps": SETTINGS}
    whole = (
        legacy(value, {"0": NUMBERS}) if kind == "legacy"
        else zipped(pickles.write(value), {"0": NUMBERS})
    )  # fmt: skip
    rng, file, count = random.Random(0), tmp_path / "file", 0
    instructions = b"()RQ.}]tuUbr0123cNKMJGX\x8a\x80\x85\x86\x87\x93\x94\xff"
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 2, 4])):
            at, size = rng.randrange(len(damaged)), rng.randrange(4)
            damaged[at : at + size] = bytes(rng.choices(instructions, k=rng.choice([0, 1, size])))
        file.write_bytes(damaged)
        try:
            found = torch_files.read(file).tensors
            assert sum(t.read().nbytes for t in found.values()) <= len(damaged)
        except InteropError:
            count += 1
    assert count > 1000


def test_a_turned_bit_in_a_zip_file_is_refused_or_harmless(tmp_path):
    whole, file, refused = zipped(pickles.write(GOOD), {"0": NUMBERS}), tmp_path / "file", 0
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
        try:
            found = torch_files.read(file)
            np.testing.assert_array_equal(found.tensors["w"].read(), NUMBERS.reshape(2, 3))
            assert found.step == 7
        except InteropError:
            refused += 1
    assert refused > len(whole) / 2
    assert_refused(tmp_path, whole.replace(NUMBERS.tobytes(), (NUMBERS + 1).tobytes()), "checksum")


def test_zip_bombs_are_refused(tmp_path):
    bomb = zipped(pickles.write(GOOD), {"0": np.zeros(10**6, "<f4")}, zipfile.ZIP_DEFLATED)
    assert_refused(tmp_path, bomb, "unpacks to more than")
    small = zipped(pickles.write(GOOD), {"0": NUMBERS}, zipfile.ZIP_DEFLATED, [("a/x", b"1")])
    assert_refused(tmp_path, small, "compressed|unpacks")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    assert_refused(tmp_path, b"<html>404 Not Found</html>", "cannot be read")
    assert_refused(tmp_path, b"", "too short")
    assert_refused(tmp_path, zipped(b"", {})[:40] + b"\0" * 40, "damaged")
    assert_refused(tmp_path, legacy({"model": {"w": 1}}, {}), "no dictionary of tensors")
    assert_refused(tmp_path, legacy([1], {}), "no dictionary of tensors")
    assert_refused(tmp_path, legacy(GOOD, {"0": NUMBERS}, magic=5), "no PyTorch checkpoint")
