"""The benchmarks, on models so small that the figures mean nothing."""

import json
import zipfile
from dataclasses import replace

import jax
import pytest

from experiments import benchmark
from experiments.benchmark import against, checkpoint, convert, timing
from jukejax import presets
from jukejax.config import ConfigError, MeshConfig, VQVAEConfig


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
    arguments = f"convert --preset tiny_prior --vqvae-preset tiny_vqvae --folder {folder}".split()
    arguments += ["--json"]
    benchmark.main(arguments)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["tensors"] > 50 and found["tensors_that_differ"] == 0
    assert found["import"]["seconds"] > 0 and found["export"]["peak_anonymous_gib"] > 0
    with pytest.raises(SystemExit, match="exists; choose"):
        benchmark.main(arguments)


def test_convert_sees_a_byte_that_differs(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    convert.write_random("vqvae", a)
    with zipfile.ZipFile(a) as source, zipfile.ZipFile(b, "w") as target:
        for name in source.namelist():
            data = bytearray(source.read(name))
            if name.endswith("data/7"):
                data[len(data) // 2] ^= 1
            target.writestr(name, bytes(data))  # with the checksum of the changed bytes
    assert convert.differing(a, b) == (669, 1)


def test_a_vqvae_is_no_prior(tmp_path):
    with pytest.raises(SystemExit, match="is no prior"):
        benchmark.main(["convert", "--preset", "vqvae", "--folder", str(tmp_path / "f")])


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The command for a tiny prior, its parts run in this process."""
    monkeypatch.setattr(presets, "PRESETS", small())

    def measured(module, arguments):
        assert module == "experiments.benchmark"
        benchmark.main(arguments)
        return {"seconds": 9.0, "peak_anonymous_gib": 1.5}

    monkeypatch.setattr(checkpoint, "measured", measured)
    return checkpoint.Command(tmp_path / "f", preset="tiny_prior")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_checkpoint_comes_back_on_another_mesh(tiny, capsys, dtype):
    found = checkpoint.run(replace(tiny, tensor=2, dtype=dtype))
    assert found["restore"]["arrays"] > 20 and found["restore"]["differ"] == 0
    shapes = jax.tree.leaves(checkpoint.wanted(tiny, MeshConfig()))
    width = {"bfloat16": 2, "float32": 4}[dtype]
    assert found["save"]["bytes"] == width * sum(x.size for x in shapes)
    assert found["save"]["seconds"] > found["save"]["handed_over"] > 0
    assert found["bytes_on_disk"] > 0
    text = "\n".join(checkpoint.lines(found))
    assert "peak 1.50 GiB" in text and "of which 0 differ in any bit" in text
    with pytest.raises(ConfigError, match="exists; choose"):
        checkpoint.run(tiny)


def test_a_bit_that_differs_is_seen(tiny, monkeypatch):
    checkpoint.save(tiny)
    right = checkpoint.noise

    def wrong(shape, dtype, seed):
        x = right(shape, dtype, seed)
        return x.at[(0,) * len(shape)].multiply(1.01) if seed == 3 else x

    monkeypatch.setattr(checkpoint, "noise", wrong)
    assert checkpoint.restore(tiny)["differ"] == 1


def test_tasks_are_timed_in_turn_after_a_first_round():
    done = []
    seconds = timing.in_turn({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 2)
    assert done == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_ratios_are_of_each_round():
    seconds = {"x": {"ours": [1.0, 2.0, 4.0], "port": [3.0, 6.0, 4.0]}}
    head, row = against.lines({"x": (8.0, "tokens/s")}, seconds)[0].splitlines()
    assert row.split() == ["x", "4.0", "2.0", "3.00x", "tokens/s"]
    assert head.split() == ["median", "of", "rounds", "ours", "port", "ratio"]
