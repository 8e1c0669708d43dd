"""The benchmarks, on models so small that the figures mean nothing."""

import json
from dataclasses import replace

import pytest

from experiments import benchmark
from experiments.benchmark import convert
from jukejax import presets
from jukejax.config import VQVAEConfig


def small():
    """A prior without labels, and a VQ-VAE of its hops, as presets."""
    vq = VQVAEConfig(downs=(1, 1), multipliers=(1, 1), width=4, depth=1, emb_width=4, codes=16)
    prior = presets.demo_upsampler_level_0()
    model = replace(
        prior.model, labels=None, upper=None, level=1, hop=4, codes=16, n_ctx=16, width=8, depth=3,
        blocks=4,
    )  # fmt: skip
    vqvae = replace(presets.demo_vqvae(), model=vq, samples=64)
    return {"tiny_vqvae": lambda: vqvae, "tiny_prior": lambda: replace(prior, model=model)}


def test_convert_brings_every_byte_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(presets, "PRESETS", small())
    folder = str(tmp_path / "f")
    arguments = [
        "convert",
        "--preset",
        "tiny_prior",
        "--vqvae-preset",
        "tiny_vqvae",
        "--folder",
        folder,
        "--json",
    ]
    benchmark.main(arguments)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["tensors"] > 50 and found["tensors_that_differ"] == 0
    assert found["import"]["seconds"] > 0 and found["export"]["peak_anonymous_gib"] > 0
    with pytest.raises(SystemExit, match="there already"):
        benchmark.main(arguments)


def test_convert_sees_a_byte_that_differs(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    convert.write_random("vqvae", a)
    data = bytearray(a.read_bytes())
    data[len(data) // 2] ^= 1
    b.write_bytes(data)
    assert convert.differing(a, b) == (669, 1)


def test_a_vqvae_is_no_prior(tmp_path):
    with pytest.raises(SystemExit, match="is no prior"):
        benchmark.main(["convert", "--preset", "vqvae", "--folder", str(tmp_path / "f")])
