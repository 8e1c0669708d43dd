"""The reference's checkpoints under the names of HuggingFace's port, and what it makes of them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from reference import FOLDER, GOLDEN, PRIORS, arrays, assert_within, batch, optional

from experiments import convert as command
from jukejax.config import VQVAEConfig, VQVAEExperiment
from jukejax.interop import (
    huggingface,
    huggingface_settings,
    importing,
    openai,
    safetensors_files,
    torch_files,
)
from jukejax.interop.tensors import Source
from jukejax.models import vqvae
from jukejax.models.prior import Prior

pytestmark = GOLDEN
STACKS = {"5b": ("5b", "up1", "up0"), "5b_lyrics": ("5b_lyrics",), "1b_lyrics": ("1b_lyrics",)}


def key_map(name):
    return json.loads((FOLDER / "npz/hf_key_map.json").read_text())["map"][name]


def checkpoint(name):
    path = "5b/vqvae" if name == "vqvae" else PRIORS[name]
    return torch_files.read(FOLDER / "openai" / f"{path}.pth.tar")


@pytest.mark.parametrize("name", ["vqvae", "up0", "up1", "5b", "5b_lyrics", "1b_lyrics"])
def test_names(name):
    """One to one, as the port's own conversion has them."""
    wanted = key_map(name)
    assert {old: huggingface.renamed(old) for old in checkpoint(name).tensors} == wanted


@pytest.mark.parametrize("name", ["5b_lyrics", "1b_lyrics"])
def test_names_of_another_model(name):
    pairs = json.loads((FOLDER.parent / f"keys_{name}.json").read_text())
    assert {old: huggingface.renamed(old) for old in pairs.values()} == {
        old: new for new, old in pairs.items()
    }


@pytest.fixture(scope="module", params=STACKS)
def directory(request, tmp_path_factory):
    """A directory as the port's conversion names it: its own key map, the reference's arrays."""
    folder = tmp_path_factory.mktemp(request.param)
    names = {"vqvae": "vqvae"} | {f"priors.{i}": n for i, n in enumerate(STACKS[request.param])}
    sources, configs = {}, {}
    vq = VQVAEExperiment(VQVAEConfig())
    for prefix, name in names.items():
        file = checkpoint(name)
        for old, new in key_map(name).items():
            tensor = file.tensors[old]
            sources[f"{prefix}.{new}"] = Source(tensor.shape, tensor.dtype.str, tensor.read)
        if name != "vqvae":
            config = importing.open_prior(file, vq).experiment.model
            configs[config.level] = config
    vq = importing.open_vqvae(checkpoint("vqvae")).experiment
    safetensors_files.write(folder / huggingface.WEIGHTS, sources)
    settings = huggingface_settings.to_config(vq, configs)
    (folder / huggingface.CONFIG).write_text(json.dumps(settings))
    return request.param, folder


def test_logits_are_those_of_the_port(directory):
    stack, folder = directory
    for name, opened in zip(
        STACKS[stack], huggingface.open_directory(folder).models[1:], strict=True
    ):
        config = opened.experiment.model
        params = openai.as_float32(importing.prior_params(opened))
        data, theirs = arrays(f"prior_{name}"), arrays(f"hf_prior_{name}")
        inputs = batch(config, data["z"], optional(data, "y"), optional(data, "z_cond"))
        logits, _ = Prior(config).apply({"params": params}, inputs)
        found = np.asarray(logits)[:, theirs["forward/pos"]]
        error = np.abs(found - theirs["forward/logits_at_pos"]).max()
        assert_within(f"HuggingFace {name} logits", error, 2e-4)


def test_codes_are_those_of_the_port(directory):
    opened = huggingface.open_directory(directory[1]).models[0]
    params, extra = importing.vqvae_trees(opened)
    data, theirs = arrays("vqvae"), arrays("hf_vqvae")
    audio, config = jnp.asarray(data["audio"]), opened.experiment.model
    for level in range(config.levels):
        z = vqvae.encode(config, openai.as_float32(params), extra.books, audio, level)
        differ = (np.asarray(z) != theirs[f"z_{level}"]) & (data[f"z_margin_{level}"] >= 1e-4)
        assert_within(f"HuggingFace {directory[0]} codes {level} that differ", differ.sum(), 0)


def test_every_tensor_goes_back(directory, tmp_path):
    """Through a model directory, bit for bit: to the port, and to OpenAI's format."""
    stack, folder = directory
    model = str(tmp_path / "model")
    command.main(["import", "--format=huggingface", "--source", str(folder), "--out", model])
    for form in ("huggingface", "openai"):
        out = str(tmp_path / form)
        command.main(["export", "--format", form, "--model", model, "--out", out])
    ends = (folder, tmp_path / "huggingface")
    before, after = (safetensors_files.read(f / huggingface.WEIGHTS) for f in ends)
    wrong = sum(t.read().tobytes() != after[n].read().tobytes() for n, t in before.items())
    assert before.keys() == after.keys()
    assert_within(f"HuggingFace {stack} and back: of {len(before)} tensors, differ", wrong, 0)
    for name in ("vqvae", *STACKS[stack]):
        was = checkpoint(name)
        level = "vqvae" if name == "vqvae" else f"prior_level_{was.hps['level']}"
        now = torch_files.read(tmp_path / "openai" / f"{level}.pth.tar").tensors
        wrong = sum(t.read().tobytes() != now[n].read().tobytes() for n, t in was.tensors.items())
        assert was.tensors.keys() == now.keys()
        assert_within(f"HuggingFace {stack} to OpenAI's {name}: tensors that differ", wrong, 0)
