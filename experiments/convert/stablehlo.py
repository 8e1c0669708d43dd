"""Functions for JAX without this package: jax.export artefacts, .safetensors and a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from experiments.convert.model import check_out
from jukejax import files
from jukejax.config import CHARACTERS, MeshConfig, PriorConfig
from jukejax.interop import stablehlo
from jukejax.interop.stablehlo import Artefact
from jukejax.interop.torch_files import sha256
from jukejax.model_dir import LoadedVQVAE, ModelDir, load_vqvae, read_model_dir
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.labels import check_labels
from jukejax.text.labels import Vocabulary
from jukejax.text.lyrics import ALPHABETS, BYTES

NAME = "manifest.json"
VERSION = 1
MEANINGS = {
    "call": "jax.export.deserialize(bytearray(file)).call(weights, *arguments), best inside "
    "jax.jit; b (songs) and t (codes) may be any number from 1 on, other sizes are fixed",
    "weights": "the dict of a .safetensors file: array by name, float32",
    "audio": "mono sound in [-1, 1] at sample_rate; decoded sound is not clipped",
    "codes": "codes of a level; of a prior's batch those before `given` are read",
    "batch": "what a prior's window is told",
    "batch.artist, batch.genres": "numbers of the names in the prior's labels; genres end with -1",
    "batch.year, batch.tags": "of priors that have them: numbers in the labels; tags end with -1",
    "batch.total_length": "length of the song in samples, over 0",
    "batch.offset": "first sample of the window in its song",
    "batch.upper": "codes of the level above for the same stretch of sound",
    "batch.lyrics": "place of each character in lyric_characters, from 1 on; 0 pads on the left; "
    "with lyric_bytes: each byte of the text and 1",
    "given": "how many codes of the window are there already",
    "kept": "what start hands to every step, unchanged",
    "caches": "what start makes and every step makes anew; donate it: jax.jit(step, "
    "donate_argnums=2)",
    "token": "what was drawn last: an index into the logits; start gives the one before `given`",
    "position": "the code that is to be drawn: given, given + 1, ... up to codes_in_window - 1",
    "logits": "of the code at position; an index i stands for the code max(i - first_code, 0)",
}


@dataclass(frozen=True)
class Export:
    """Write a model directory as functions that JAX runs without jukejax, with weights apart."""

    model: Path
    """A model directory (model.json)."""
    out: Path
    """Gets the artefacts, .safetensors files, label names and manifest.json; must be empty."""


def write_artefacts(
    place: Path, weights: str, made: Iterator[tuple[str, Artefact]]
) -> dict[str, Any]:
    """Writes artefacts into `place`; what the manifest says of them, by name."""
    entries = {}
    for name, artefact in made:
        file = f"{name}.jaxexport"
        (place / file).write_bytes(artefact.exported.serialize())
        entries[name] = {"file": file, "weights": weights, **artefact.describe()}
    return entries


def labels_file(level: int) -> str:
    """Where a prior's label names lie in the folder."""
    return f"labels_{level}.json"


def describe_prior(config: PriorConfig) -> dict[str, Any]:
    """What the manifest says of a prior."""
    name = f"prior_level_{config.level}"
    out: dict[str, Any] = {
        "start": f"{name}.start",
        "step": f"{name}.step",
        "hop": config.hop,
        "codes_in_window": config.n_ctx,
        "first_code": config.vocabulary - config.codes,
    }
    if config.labels:
        out["labels"] = labels_file(config.level)
    if config.upper:
        out["codes_per_upper_code"] = config.upper.ratio
    if config.lyrics:
        alphabet = config.lyrics.alphabet
        if alphabet == BYTES:
            out["lyric_bytes"] = "utf-8"
        else:
            out["lyric_characters"] = ALPHABETS.get(alphabet) or alphabet.removeprefix(CHARACTERS)
    return out


def checked_priors(
    folder: ModelDir, model: LoadedVQVAE
) -> dict[int, tuple[PriorConfig, Vocabulary | None]]:
    """Configs and label names by level of priors that fit the VQ-VAE; no weights are read."""
    found = {}
    for level in sorted(folder.priors):
        config, note = folder.checked_config(model, level)
        vocabulary = Vocabulary.load(folder.labels(level)) if config.labels else None
        if vocabulary:
            check_labels(config, note, vocabulary, folder)
        found[level] = config, vocabulary
    return found


def run_export(command: Export) -> None:
    """Checks all, then writes a folder that appears when it is whole."""
    check_out(command.out)
    folder = read_model_dir(command.model)
    model = load_vqvae(folder.vqvae, make_mesh(MeshConfig()))
    priors = checked_priors(folder, model)
    with files.atomic_folder(command.out) as place:
        weights = "vqvae.safetensors"
        stablehlo.write_vqvae_weights(model, place / weights)
        entries = write_artefacts(place, weights, stablehlo.vqvae_artefacts(model.config))
        for level, (config, vocabulary) in priors.items():
            if vocabulary:
                vocabulary.save(place / labels_file(level))
            weights = f"prior_level_{level}.safetensors"
            stablehlo.write_prior_weights(config, folder.priors[level], place / weights)
            entries |= write_artefacts(place, weights, stablehlo.prior_artefacts(config))
        manifest: dict[str, Any] = {
            "format": "jukejax-stablehlo",
            "version": VERSION,
            "jax": jax.__version__,
            "fingerprint": model.fingerprint,
            "sample_rate": model.config.sample_rate,
            "hops": model.config.hops,
            "codes": model.config.codes,
            "priors": {str(level): describe_prior(c) for level, (c, _) in priors.items()},
            "meanings": MEANINGS,
            "artefacts": entries,
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(place.iterdir())
            },
        }
        files.write_json(place / NAME, manifest)
    for name, file in manifest["files"].items():
        print(f"{name}: {file['bytes']:,} bytes, sha256 {file['sha256']}")
    print(f"Manifest: {command.out / NAME}")


COMMANDS = {"export": Export}
RUN = {"export": run_export}
