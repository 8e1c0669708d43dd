"""OpenAI's checkpoints as runs of ours, and back, bit for bit.

An imported run looks like a trained one: `params` and `ema` (equal: the published weights are
averages), `extra` and `config`, whose note keeps under "openai" what our trees do not hold: the
file's settings, which tensors were float16, and its SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jukejax import checkpoint
from jukejax.checkpoint import Checkpoints
from jukejax.config import Experiment, PriorExperiment, VQVAEExperiment, to_dict
from jukejax.interop import openai, openai_settings, torch_files
from jukejax.interop.errors import InteropError
from jukejax.interop.openai import BOOKS, Entry
from jukejax.interop.torch_files import Source
from jukejax.model_dir import fingerprint, load_experiment
from jukejax.models.bottleneck import Codebook
from jukejax.training.losses import Bandwidth
from jukejax.training.step import abstract_state
from jukejax.training.tasks import VQVAEExtra, make_task


@dataclass(frozen=True)
class Opened:
    """A checked file: its model, and the table that reads it."""

    file: torch_files.Checkpoint
    experiment: Experiment
    entries: list[Entry]

    def leaf(self, entry: Entry) -> np.ndarray[Any, Any]:
        return openai.gather(entry, lambda name: self.file.tensors[name].read())


def open_vqvae(file: torch_files.Checkpoint, experiment: VQVAEExperiment | None = None) -> Opened:
    """A VQ-VAE's file, checked; `experiment` where the file holds no settings.

    Raises:
      InteropError: it is not the VQ-VAE that its settings describe.
    """
    if experiment is None:
        if file.hps is None:
            raise InteropError(f"{file.path} holds no settings; name the preset that it is.")
        experiment = openai_settings.vqvae_experiment(file.hps, str(file.path))
    return _opened(file, experiment, openai.vqvae_entries(experiment.model))


def open_prior(
    file: torch_files.Checkpoint, vqvae: VQVAEExperiment, experiment: PriorExperiment | None = None
) -> Opened:
    """A prior's file, checked; `experiment` where the file holds no settings.

    Raises:
      InteropError: it is not the prior that its settings describe.
    """
    blocks = "blocks"
    if experiment is None:
        if file.hps is None:
            raise InteropError(f"{file.path} holds no settings; name the preset that it is.")
        table = file.tensors.get("prior.x_emb.weight")
        rows = table.shape[0] if table and table.shape else 0
        where = str(file.path)
        config = openai_settings.prior_config(file.hps, vqvae.model, rows, where)
        experiment = PriorExperiment(config)
        blocks = _blocks(file.hps)
    return _opened(file, experiment, openai.prior_entries(experiment.model, blocks))


def _blocks(hps: Mapping[str, Any] | None) -> str:
    return "blocks" if (hps or {}).get("cond_c_res", 1) else "model"


def _opened(file: torch_files.Checkpoint, experiment: Experiment, entries: list[Entry]) -> Opened:
    config = experiment.model
    found = {name: tensor.shape for name, tensor in file.tensors.items()}
    openai.check(str(file.path), openai.expected(config, entries), found)
    odd = [n for n, t in file.tensors.items() if t.dtype not in (np.float32, np.float16)]
    if odd:
        raise InteropError(f"{file.path}: {', '.join(odd)} are neither float32 nor float16.")
    for name, other in openai.shared(config).items():
        a, b = file.tensors[name], file.tensors[other]
        if a != b and not np.array_equal(a.read(), b.read()):
            raise InteropError(
                f"{file.path}: {name} differs from {other}, but by its settings they are one; the "
                "file is damaged, or its merged_decoder is wrong."
            )
    return Opened(file, experiment, entries)


def restored_book(codes: np.ndarray[Any, Any], tokens: float) -> Codebook:
    """A codebook whose moving sums are guessed anew, because files hold the codes alone.

    Every code counts as chosen tokens / K times a step. The published code leaves the batch size
    out of `tokens`, which makes codes restart too readily after a resume; here it is in.
    """
    counts = jnp.full((codes.shape[0],), tokens / codes.shape[0], jnp.float32)
    known = jnp.asarray(codes, jnp.float32)
    return Codebook(known, known * counts[:, None], counts)


def vqvae_trees(opened: Opened) -> tuple[Any, VQVAEExtra]:
    """Parameters and state of a VQ-VAE. Its loudness is not in the file and becomes 1."""
    experiment = opened.experiment
    assert isinstance(experiment, VQVAEExperiment)
    leaves = {entry.path: opened.leaf(entry) for entry in opened.entries}
    books = []
    for level, hop in enumerate(experiment.model.hops):
        tokens = experiment.samples // hop * experiment.train.batch
        books.append(restored_book(leaves.pop((BOOKS, str(level))), tokens))
    one = jnp.ones((), jnp.float32)
    return openai.nested(leaves), VQVAEExtra(tuple(books), Bandwidth(one, one, one))


def prior_params(opened: Opened) -> Any:
    """Parameters of a prior."""
    return openai.nested({entry.path: opened.leaf(entry) for entry in opened.entries})


def save_vqvae(opened: Opened, workdir: str | Path, digest: str) -> str:
    """Writes a VQ-VAE as a run; returns the fingerprint of its codes."""
    params, extra = vqvae_trees(opened)
    note = {"openai": _note(opened, digest), "loudness": "unknown"}
    _save(opened, workdir, {"params": params, "ema": params, "extra": extra}, note)
    config: Any = opened.experiment.model
    return fingerprint(config, params, extra.books)


def save_prior(opened: Opened, workdir: str | Path, digest: str, mark: str) -> None:
    """Writes a prior as a run whose codes are those of the VQ-VAE with fingerprint `mark`."""
    params = prior_params(opened)
    note = {"openai": _note(opened, digest), "fingerprint": mark}
    _save(opened, workdir, {"params": params, "ema": params}, note)


def _note(opened: Opened, digest: str) -> dict[str, Any]:
    half = [n for n, t in opened.file.tensors.items() if t.dtype == np.float16]
    return {"hps": opened.file.hps, "float16": sorted(half), "sha256": digest}


def _save(opened: Opened, workdir: str | Path, trees: dict[str, Any], note: dict) -> None:
    if checkpoint.directory(workdir).exists():
        raise InteropError(f"{workdir} holds a run already; choose an empty folder for --out.")
    config = {"experiment": to_dict(opened.experiment), **note}
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(opened.file.step, trees, config)


# --- back -----------------------------------------------------------------------------------------


def export(workdir: str | Path, path: str | Path, mesh: jax.sharding.Mesh) -> None:
    """Writes the latest averaged weights of a run as a file in OpenAI's layout.

    An imported run gives back the tensors, dtypes and settings that it came from.
    """
    experiment, note = load_experiment(workdir)
    origin = note.get("openai") or {}
    hps = _tuples(origin["hps"]) if origin.get("hps") else _settings(experiment)
    if isinstance(experiment, VQVAEExperiment):
        entries = openai.vqvae_entries(experiment.model)
    else:
        entries = openai.prior_entries(experiment.model, _blocks(hps))
    state = abstract_state(make_task(experiment), experiment, mesh)
    with checkpoint.open_existing(workdir) as checkpoints:
        step = checkpoints.latest
        trees = checkpoints.restore({"ema": state.ema, "extra": state.extra})
    half = set(origin.get("float16", ()))
    sources = {}
    for entry in entries:
        leaf = _leaf(trees, entry)
        shape = openai.tensor_shape(entry, leaf.shape)
        for i, name in enumerate(entry.names):
            dtype = "<f2" if name in half else "<f4"
            sources[name] = Source(shape, dtype, _reader(entry, leaf, i))
    torch_files.write(path, sources, openai.shared(experiment.model), hps, step or 0)


def _leaf(trees: dict[str, Any], entry: Entry) -> Any:
    if entry.path[0] == BOOKS:
        return trees["extra"].books[int(entry.path[1])].codes
    return openai.at(trees["ema"], entry.path)


def _reader(entry: Entry, leaf: Any, index: int) -> Any:
    return lambda: openai.scatter(entry, np.asarray(leaf), index)


def _settings(experiment: Experiment) -> dict[str, Any]:
    if isinstance(experiment, VQVAEExperiment):
        return openai_settings.vqvae_settings(experiment.model, experiment.samples)
    return openai_settings.prior_settings(experiment.model)


def _tuples(hps: Mapping[str, Any]) -> dict[str, Any]:
    """Settings out of JSON: the lists were tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in hps.items()}
