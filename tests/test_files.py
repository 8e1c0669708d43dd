"""Atomic writes: complete content or none, no temporary file left, ordinary permissions."""

import json
import os
from pathlib import Path

import pytest

from jukejax.files import atomic_path, write_bytes, write_json, write_text


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text(path, "één\r\n")
    assert path.read_bytes() == "één\r\n".encode()
    write_bytes(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    write_json(path, {"naam": "één", "n": [1, 2.5, None]})
    assert json.loads(path.read_text("utf-8")) == {"naam": "één", "n": [1, 2.5, None]}
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    with pytest.raises(TypeError):
        write_json(path, object())
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_its_owner_alone_gets_ordinary_permissions(tmp_path: Path) -> None:
    """As safetensors writes them."""
    write_text(tmp_path / "ordinary", "")
    with atomic_path(tmp_path / "weights") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    modes = {(tmp_path / name).stat().st_mode for name in ("ordinary", "weights")}
    assert len(modes) == 1


def test_old_content_stays_readable_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    write_bytes(path, b"old")
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".wav"
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_permissions_are_ordinary_and_kept(tmp_path: Path) -> None:
    path, plain = tmp_path / "a", tmp_path / "b"
    write_text(path, "x")
    plain.write_text("x")
    assert path.stat().st_mode == plain.stat().st_mode
    os.chmod(path, 0o640)
    write_text(path, "y")
    assert path.stat().st_mode & 0o777 == 0o640
