"""A small model that HuggingFace's port supports, and what tests do with its directories."""

import json
import shutil
from dataclasses import replace

import pytest

from experiments import convert as command
from jukejax.config import LabelsConfig, LyricsConfig, PriorConfig, UpperConfig, VQVAEConfig
from jukejax.interop import safetensors_files, torch_files
from jukejax.interop.tensors import Source

VQVAE = VQVAEConfig(downs=(1, 1, 1), multipliers=(2, 1, 1), width=4, depth=1, emb_width=4, codes=16)
LABELS = LabelsConfig(artists=5, genres=3, max_genres=2, timing_bins=4)
SMALL = dict(  # imported priors have the tuned layers
    codes=16, n_ctx=16, width=8, heads=2, blocks=4, depth=3, labels=LABELS, layers="tuned"
)  # fmt: skip
UPPER = UpperConfig(ratio=2, width=4, depth=2)
PRIORS = {
    2: PriorConfig(
        **(SMALL | {"depth": 4}), level=2, hop=8, attn_order=10, tied_output=False,
        lyrics=LyricsConfig(tokens=8, width=8, depth=3, heads=1, blocks=2),
    ),
    1: PriorConfig(
        **(SMALL | {"labels": replace(LABELS, max_genres=3)}),
        level=1, hop=4, upper=replace(UPPER, scale_residual=True),
    ),
    0: PriorConfig(**SMALL, level=0, hop=2, upper=UPPER),
}  # fmt: skip


def run(*arguments):
    command.main([str(a) for a in arguments])


def export(model, out):
    run("export", "--format", "huggingface", "--model", model, "--out", out)
    return out


def imported(directory, out, *more):
    run("import", "--format", "huggingface", "--source", directory, "--out", out, *more)
    return out


def config_of(directory):
    return json.loads((directory / "config.json").read_text())


def copied(directory, to):
    return shutil.copytree(directory, to)


def changed(directory, to, change):
    """A copy of a directory whose config.json was changed by a function."""
    config = config_of(copied(directory, to))
    change(config)
    (to / "config.json").write_text(json.dumps(config))
    return to


def save(path, tensors, writer=safetensors_files.write):
    writer(path, {n: Source(t.shape, t.dtype.str, t.read) for n, t in tensors.items()})


def save_torch(path, tensors):
    save(path, tensors, lambda path, sources: torch_files.write(path, sources, {}, None, 0))


def assert_refused(directory, tmp_path, match, *more):
    out = tmp_path / "refused"
    with pytest.raises(SystemExit, match=match) as stopped:
        imported(directory, out, *more)
    assert "Traceback" not in str(stopped.value)
    assert not out.exists() and not list(tmp_path.glob(".refused*"))
