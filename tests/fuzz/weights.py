"""Weights: checkpoints, PyTorch's and safetensors' files, pickles, HuggingFace's settings."""

import dataclasses
import io
import json
import os
import struct
import sys
from pathlib import Path

import jax
import numpy as np

from jukejax.config import MeshConfig, PriorExperiment, VQVAEExperiment
from jukejax.interop import huggingface_settings, importing, pickles
from jukejax.interop import safetensors_files as safetensors
from jukejax.interop import torch_files as torch
from jukejax.interop.pickles import Storage, TensorRecord
from jukejax.interop.tensors import Source
from jukejax.model_dir import NAME, load_prior, load_vqvae, read_model_dir
from jukejax.models import lora
from jukejax.packing import ship
from jukejax.parallel.mesh import make_mesh
from jukejax.text.labels import Vocabulary
from jukejax.training import adapters
from jukejax.training.checkpoint import load_experiment
from tests.fuzz.harness import Format, require
from tests.fuzz.mutations import any_json, changed, damaged, flipped

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "interop")]

# --- checkpoints ----------------------------------------------------------------------------------


def make_run(folder):
    import tiny_model

    run = folder / "run"
    tiny_model.save(run, VQVAEExperiment(model=tiny_model.VQVAE))
    mesh = make_mesh(MeshConfig())
    paths = sorted(p.relative_to(run) for p in run.rglob("*") if p.is_file())
    return run, paths, load_vqvae(run, mesh), mesh


def link(base, folder, changed, data):
    """Links all files of a folder to another; one is replaced by bytes, or left out (None)."""
    for path in base.rglob("*"):
        target = folder / path.relative_to(base)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.relative_to(base) != changed:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    if data is not None:
        (folder / changed).write_bytes(data)


def checkpoint(state, folder, rng):
    run, paths, truth, mesh = state
    path = paths[rng.integers(len(paths))]
    data, kind = (run / path).read_bytes(), rng.random()
    change = flipped if kind < 0.5 and data else damaged
    link(run, folder / "run", path, None if kind > 0.95 else change(data, rng))
    found = load_vqvae(folder / "run", mesh)
    require(found.config == truth.config and found.step == truth.step, "config", path, found.config)
    require(found.fingerprint == truth.fingerprint, "other weights silently", path)
    return "unchanged"


def checkpoint_config(state, folder, rng):
    """The config of a checkpoint without digests, as older versions wrote it."""
    run, paths, truth, _ = state
    path = next(p for p in paths if p.match("config/metadata"))
    data = any_json(json.loads((run / path).read_bytes()), rng)
    link(run, folder / "run", path, data)
    next((folder / "run").rglob("digests.json")).unlink()
    found, note = load_experiment(folder / "run")
    require(type(found) is VQVAEExperiment and note["step"] == truth.step, "another run", found)
    return "unchanged" if found.model == truth.config else "other"


def make_packed(folder):
    import tiny_model

    mesh, card = make_mesh(MeshConfig()), folder / "card.md"
    card.write_text("# Tiny\n")
    model = ship(read_model_dir(tiny_model.write(folder)), folder / "packed", card, mesh)
    return model.path, *weights_of(model.path, mesh), mesh


def weights_of(model, mesh):
    """The fingerprint of a model's VQ-VAE, and the arrays of its top prior."""
    directory = read_model_dir(model)
    vqvae = load_vqvae(directory.vqvae, mesh)
    prior = directory.load_prior(mesh, vqvae, 2)
    labels = Vocabulary.load(directory.labels(2))
    return vqvae.fingerprint, jax.tree.map(np.asarray, prior.params), labels


def packed_model(state, folder, rng):
    model, *truth, mesh = state
    paths = sorted(path.relative_to(model) for path in model.iterdir())
    path = paths[rng.integers(len(paths))]
    data = (model / path).read_bytes()
    if path.name == NAME and rng.random() < 0.5:
        data = any_json(json.loads(data), rng)
    else:
        data = flipped(data, rng) if rng.random() < 0.6 else damaged(data, rng)
    link(model, folder / "packed", path, data)
    fingerprint, params, labels = weights_of(folder / "packed", mesh)
    same = jax.tree.map(np.array_equal, params, truth[1])
    require(fingerprint == truth[0], "another VQ-VAE silently", path)
    require(all(jax.tree.leaves(same)), "other weights silently", path)
    require(labels == truth[2], "other labels silently", path)
    return "unchanged"


def make_adapter(folder):
    import tiny_model

    base = folder / "base"
    tiny_model.save(base, PriorExperiment(model=tiny_model.TOP), {"run": "a", "fingerprint": "f"})
    mesh = make_mesh(MeshConfig())
    params = load_prior(base, mesh).params
    ema = jax.tree.map(lambda x: x + 0.5, lora.init(jax.random.key(0), params, 2))
    tuned = folder / "tuned"
    adapters.write(tuned, base, PriorExperiment(model=tiny_model.TOP, lora=2), ema, {"step": 2})
    return tuned, load_prior(tuned / adapters.NAME, mesh), mesh


def adapter(state, folder, rng):
    tuned, truth, mesh = state
    path = Path(adapters.NAME if rng.random() < 0.5 else adapters.PLACE)
    data = (tuned / path).read_bytes()
    if path.name == adapters.PLACE and rng.random() < 0.7:
        data = any_json(json.loads(data), rng)
    else:
        data = flipped(data, rng) if rng.random() < 0.6 else damaged(data, rng)
    link(tuned, folder / "tuned", path, data)
    os.symlink(tuned.parent / "base", folder / "base")  # as adapter.json names it
    found = load_prior(folder / "tuned" / adapters.NAME, mesh)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), found.params, truth.params)
    require(all(jax.tree.leaves(same)) and found.config == truth.config, "others silently", path)
    return "unchanged"


# --- files of other projects ----------------------------------------------------------------------

ARRAYS = {
    "a": np.random.default_rng(0).normal(size=(3, 40)).astype("<f4"),
    "b.w": np.random.default_rng(1).normal(size=(5, 7)).astype("<f2"),
    "c": np.arange(11.0, dtype="<f4"),
}
HPS = {"levels": 3, "width": 32, "name": "é", "downs_t": (3, 2), "on": True, "ratio": 0.25}


def make_zip(folder):
    torch.write(folder / "model.pth.tar", tensors(), {}, HPS, 7)
    return (folder / "model.pth.tar").read_bytes()


def make_safetensors(folder):
    safetensors.write(folder / "model.safetensors", tensors())
    return (folder / "model.safetensors").read_bytes()


def tensors():
    return {n: Source(a.shape, a.dtype.str, lambda a=a: a) for n, a in ARRAYS.items()}


def judge(found):
    """Compares tensors with `ARRAYS`: "unchanged", or "other" where no checksum tells."""
    arrays = {name: tensor.read() for name, tensor in found.items()}
    for name, array in arrays.items():
        require(array.shape == found[name].shape, "shape", name, array.shape)
        require(array.nbytes <= 1 << 20, "larger than its file", name, array.shape)
    same = arrays.keys() == ARRAYS.keys() and all(
        np.array_equal(arrays[name], array) for name, array in ARRAYS.items()
    )
    return "unchanged" if same else "other"


def torch_zip(data, folder, rng):
    file = folder / "model.pth.tar"
    file.write_bytes(flipped(data, rng) if rng.random() < 0.6 else damaged(data, rng))
    found = torch.read(file)
    require(judge(found.tensors) == "unchanged", "other weights silently", found)
    require(found.step == 7 and found.hps == HPS, "other settings silently", found)
    return "unchanged"


def torch_legacy(_state, folder, rng):
    file = folder / "model.pth.tar"
    data = legacy()
    one = rng.random() < 0.6
    file.write_bytes(flipped(data, rng) if one else damaged(data, rng))
    found = torch.read(file)
    outcome = judge(found.tensors)
    if one and outcome == "other" and found.tensors.keys() == ARRAYS.keys():
        differ = [n for n, t in found.tensors.items() if not np.array_equal(t.read(), ARRAYS[n])]
        require(len(differ) == 1, "a bit changed several tensors", differ)
    return outcome


def legacy():
    """A file of the legacy format."""
    model, storages = {}, {}
    for key, (name, array) in enumerate(ARRAYS.items()):
        strides = tuple(s // array.itemsize for s in array.strides)
        storage = Storage(str(key), array.dtype.str, array.size)
        model[name], storages[str(key)] = TensorRecord(storage, 0, array.shape, strides), array
    value = {"model": model, "step": 7, "hps": HPS}
    machine = {"little_endian": True, "protocol_version": 1001}
    head = (0x1950A86A20F9469CFC6C, 1001, machine, value, [*storages])
    out = b"".join(map(pickles.write, head))
    for array in storages.values():
        out += struct.pack("<q", array.size) + array.tobytes()
    return out


def safetensors_file(data, folder, rng):
    file = folder / "model.safetensors"
    file.write_bytes(flipped(data, rng) if rng.random() < 0.6 else damaged(data, rng))
    return judge(safetensors.read(file))


def pickle_program(_state, folder, rng):
    """Pickles of tensors and settings; the machine may not run or import anything."""
    record = TensorRecord(Storage("0", "<f4", 12), 0, (3, 4), (4, 1))
    value = {"model": {"w": record}, "hps": HPS, "list": [1, 2.5, None, "x" * 300]}
    data = pickles.write(value)
    found = pickles.read(io.BytesIO(damaged(data, rng)), str(folder))
    plain(found)
    return "unchanged" if found == value else "other"


def plain(value, depth=0):
    """Raises Finding unless a value is of plain types and tensors."""
    kinds = (str, bytes, int, float, bool, type(None), TensorRecord, Storage, pickles._Name)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if depth < 50 and isinstance(value, list | tuple):
        return [plain(x, depth + 1) for x in value]
    require(depth >= 50 or isinstance(value, kinds), "an object of a pickle", type(value))


def make_release(folder):
    import openai_files
    import small_model

    priors = {2: small_model.PRIORS[0], 1: small_model.PRIORS[1]}
    paths = openai_files.write_release(folder, small_model.VQVAE, priors)
    files = [torch.read(path) for path in paths.values()]
    vqvae = importing.open_vqvae(files[0]).experiment
    found = [importing.open_prior(file, vqvae).experiment for file in files[1:]]
    return list(zip(files, [vqvae, *found], strict=True))


def openai_settings(state, folder, rng):
    """A model whose settings are edited, so that its file's checksums are right."""
    number = rng.integers(len(state))
    (file, truth), vqvae = state[number], state[0][1]
    settings = torch._settings({"hps": _tuples(changed(_lists(file.hps), rng))}) or {}
    file = dataclasses.replace(file, path=folder / "model.pth.tar", hps=settings)
    found = importing.open_prior(file, vqvae) if number else importing.open_vqvae(file)
    return "unchanged" if found.experiment == truth else "other"


def _lists(value):
    return json.loads(json.dumps(value))


def _tuples(value):
    if isinstance(value, dict):
        return {name: _tuples(x) for name, x in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def make_settings(_folder):
    import small_model

    vqvae = VQVAEExperiment(model=small_model.VQVAE, samples=64)
    return huggingface_settings.to_config(vqvae, small_model.PRIORS)


def huggingface_config(config, folder, rng):
    file = folder / "config.json"
    file.write_bytes(any_json(json.loads(json.dumps(config)), rng))
    found = huggingface_settings.read(file)
    vqvae = huggingface_settings.vqvae_experiment(found, str(file)).model
    huggingface_settings.prior_configs(found, vqvae, str(file))
    return "other"


FORMATS = [
    Format("checkpoint", 150, make_run, checkpoint),
    Format("checkpoint config", 250, make_run, checkpoint_config),
    Format("packed model", 150, make_packed, packed_model),
    Format("adapter", 100, make_adapter, adapter),
    Format("PyTorch zip", 500, make_zip, torch_zip),
    Format("PyTorch legacy", 500, lambda _: None, torch_legacy),
    Format("safetensors", 400, make_safetensors, safetensors_file),
    Format("pickle", 600, lambda _: None, pickle_program),
    Format("OpenAI settings", 400, make_release, openai_settings),
    Format("HuggingFace config", 400, make_settings, huggingface_config),
]
