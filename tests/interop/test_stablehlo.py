"""Exported functions against the models themselves, and the example where jukejax cannot be had."""

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import soundfile
import windows
from jax import export
from safetensors.numpy import load_file

from experiments import convert as command
from jukejax import presets
from jukejax.config import (
    FramesConfig,
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    PriorExperiment,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
    to_dict,
)
from jukejax.interop import stablehlo
from jukejax.model_dir import fingerprint, write_model_dir
from jukejax.models import prior, vqvae
from jukejax.models.bottleneck import restored_book
from jukejax.models.prior import Prior
from jukejax.sampling.draw import Control, choose
from jukejax.text.labels import Vocabulary
from jukejax.training import checkpoint
from jukejax.training.losses import Bandwidth
from jukejax.training.tasks import VQVAEExtra

VQVAE = VQVAEConfig(downs=(1, 1, 1), multipliers=(2, 1, 1), width=4, depth=1, emb_width=4, codes=16)
T, CODES = 16, 16
SMALL = dict(codes=CODES, n_ctx=T, width=8, heads=2, blocks=4, layers="tuned")
LABELS = LabelsConfig(artists=2, genres=2, max_genres=2)
ENCODER = LyricsConfig(tokens=8, width=8, depth=1, heads=1, blocks=2)
PRIORS = {
    "upsampler": PriorConfig(
        **SMALL, level=1, hop=4, depth=3, labels=LABELS,
        upper=UpperConfig(ratio=2, width=4, depth=2),
    ),
    "encoder": PriorConfig(
        **SMALL, level=2, hop=8, depth=4, attn_order=6, tied_output=False, labels=LABELS,
        lyrics=ENCODER,
    ),
    # without labels; 4 characters and 16 codes in rows of 5, logits of characters too
    "prefix": PriorConfig(
        **SMALL, depth=16, attn_order=12, lyrics=LyricsConfig(tokens=4, alphabet="v3", prefix=True)
    ),
}  # fmt: skip


def flat(tree):
    """A tree of dicts as the dict that a .safetensors file would give."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(k.key for k in path): np.asarray(leaf) for path, leaf in leaves}


def revived(artefact):
    """The function as another process would have it."""
    return jax.jit(export.deserialize(artefact.exported.serialize()).call)


def batch_of(config, size, seed=0):
    rng = np.random.default_rng(seed)
    batch = {"codes": rng.integers(0, CODES, (size, T))}
    if config.labels:
        batch |= {"artist": rng.integers(0, 2, size), "genres": rng.integers(-1, 2, (size, 2))}
        batch |= {"total_length": np.full(size, 9_000_000), "offset": 50_000 * np.arange(size)}
    if config.upper:
        batch["upper"] = rng.integers(0, CODES, (size, T // 2))
    if config.lyrics:
        batch["lyrics"] = rng.integers(0, 79, (size, config.lyrics.tokens))
    return {name: x.astype(np.int32) for name, x in batch.items()}


@pytest.fixture(scope="module")
def exported():
    """kind -> config, params, the two functions with their weights, and the two artefacts."""

    @functools.cache
    def exported(kind):
        config = PRIORS[kind]
        params = oracle.random_params(lambda key: prior.init_params(config, key), scale=0.5)
        artefacts = dict(stablehlo.prior_artefacts(config))
        name = f"prior_level_{config.level}"
        assert list(artefacts) == [f"{name}.start", f"{name}.step"]
        calls = [functools.partial(revived(a), flat(params)) for a in artefacts.values()]
        return SimpleNamespace(
            config=config, params=params, start=calls[0], step=calls[1], artefacts=artefacts
        )

    return exported


# --- priors ---------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def full(config, params, batch):
    """Logits (B, T, K) of the codes in one pass."""
    return Prior(config).apply({"params": params}, batch)[0][:, config.prefix_len :]


@pytest.mark.parametrize("kind", PRIORS)
def test_steps_give_the_logits_of_the_full_pass(exported, kind):
    p = exported(kind)
    whole = batch_of(p.config, 3)
    logits = np.asarray(full(p.config, p.params, whole))
    first_code = p.config.vocabulary - CODES
    for size, given in ((3, 0), (3, 6), (1, 2))[: 2 if kind == "prefix" else 3]:
        batch = {name: x[:size] for name, x in whole.items()}
        known = np.where(np.arange(T) < given, batch["codes"], 0)
        kept, caches, token = p.start(batch | {"codes": known}, given)
        assert (token.shape, token.dtype) == ((size,), np.int32)
        for position in range(given, T):
            found, caches = p.step(kept, caches, np.asarray(token), position)
            np.testing.assert_allclose(found, logits[:size, position], rtol=1e-4, atol=1e-4)
            token = batch["codes"][:, position] + first_code


@pytest.mark.parametrize("kind", ["upsampler", "prefix"])
def test_steps_draw_what_sampling_draws(exported, kind):
    p, size, given = exported(kind), 3, 3
    u = np.random.default_rng(1).random((size, T)).astype(np.float32)
    batch, control = batch_of(p.config, size, seed=2), Control(jnp.float32(2))
    stream = windows.filled(p.config, p.params, batch, u, given, T, control)
    wanted = np.asarray(stream.tokens)[:, p.config.prefix_len :]
    kept, caches, token = p.start(batch, given)
    for position in range(given, T):
        logits, caches = p.step(kept, caches, np.asarray(token), position)
        token = np.asarray(choose(logits, u[:, position], control))
        np.testing.assert_array_equal(token, wanted[:, position])
    assert len(np.unique(wanted[:, given:])) > 3


def test_an_artefact_is_for_three_platforms_and_tells_nothing_of_where_it_was_made(exported):
    for artefact in exported("encoder").artefacts.values():
        assert artefact.exported.platforms == ("cpu", "cuda", "tpu")
        assert b".py" not in bytes(artefact.exported.serialize())
        # the check of sizes, which JAX makes when it calls; nothing of one platform alone
        calls = set(re.findall(r"custom_call @\w+", artefact.exported.mlir_module()))
        assert calls == {"custom_call @shape_assertion"}
    assert jax.config.jax_traceback_in_locations_limit != 0


def test_a_wrong_size_is_an_error(exported):
    p = exported("upsampler")
    batch = batch_of(p.config, 2)
    with pytest.raises(ValueError, match="upper"):
        p.start(batch | {"upper": batch["upper"][:, :-1]}, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in presets.PRESETS if ("prior" in n or "upsampler" in n) and "songs" not in n]
)
def test_published_priors_export_without_their_weights(name):
    config = presets.get(name).model
    if config.labels:
        config = config.__class__(**{**vars(config), "labels": LabelsConfig(artists=9, genres=9)})
    for artefact_name, artefact in stablehlo.prior_artefacts(config):
        size = len(artefact.exported.serialize())
        print(f"{artefact_name} of {name}: {size:,} bytes")
        assert size < 500_000


# --- the VQ-VAE -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def autoencoder():
    params = oracle.random_params(lambda key: vqvae.init_params(VQVAE, key))
    noise = np.random.default_rng(1).uniform(-1, 1, (1, 8 * CODES, 1)).astype(np.float32)
    vectors = [jax.jit(vqvae.to_vectors, static_argnums=(0, 3))(VQVAE, params, noise, i)
               for i in range(3)]  # fmt: skip
    return params, tuple(restored_book(x[0, :CODES], 1) for x in vectors)


@pytest.fixture(scope="module")
def vqvae_calls(autoencoder):
    params, books = autoencoder
    weights = flat({**params, "codebooks": {str(i): b.codes for i, b in enumerate(books)}})
    made = stablehlo.vqvae_artefacts(VQVAE)
    return {name: functools.partial(revived(a), weights) for name, a in made}


@pytest.mark.parametrize(("size", "samples"), [(1, 64), (3, 40)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_vqvae_encodes_and_decodes_alike(autoencoder, vqvae_calls, level, size, samples):
    audio = np.random.default_rng(2).uniform(-1, 1, (size, samples)).astype(np.float32)
    own = functools.partial(jax.jit, static_argnums=(0, 4))
    codes = own(vqvae.encode)(VQVAE, *autoencoder, audio[..., None], level)
    found = vqvae_calls[f"encode_level_{level}"](audio)
    np.testing.assert_array_equal(found, codes)
    assert found.shape == (size, samples // VQVAE.hops[level]) and len(np.unique(found)) > 3
    sound = own(vqvae.decode)(VQVAE, *autoencoder, codes, level)[..., 0]
    again = vqvae_calls[f"decode_level_{level}"](codes)
    np.testing.assert_allclose(again, sound, rtol=1e-5, atol=1e-6)
    assert again.shape == audio.shape and np.std(again) > 1e-3


def test_a_vqvae_of_frames_encodes_and_decodes_alike():
    config = VQVAEConfig(
        downs=(1,), multipliers=(1,), width=4, depth=1, emb_width=3, codes=CODES,
        groups=2, frames=FramesConfig(hop=4, bands=5, window=32, synthesis=16),
    )  # fmt: skip
    params = oracle.random_params(lambda key: vqvae.init_params(config, key), scale=1.0)
    audio = np.random.default_rng(2).uniform(-1, 1, (2, 256)).astype(np.float32)
    vectors = jax.jit(lambda x: vqvae.to_vectors(config, params, x, 0))(audio[..., None])
    rows = np.random.default_rng(3).normal(0, np.std(vectors), (2 * CODES, 3))
    books = (restored_book(rows.astype(np.float32), 1),)
    weights = flat({**params, "codebooks": {"0": books[0].codes}})
    made = dict(stablehlo.vqvae_artefacts(config))
    codes = revived(made["encode_level_0"])(weights, audio)
    own = functools.partial(jax.jit, static_argnums=(0, 4))
    expected = own(vqvae.encode)(config, params, books, audio[..., None], 0)
    np.testing.assert_array_equal(codes, expected)
    assert codes.shape == (2, 2 * 32) and len(np.unique(codes)) > 3
    sound = own(vqvae.decode)(config, params, books, codes, 0)[..., 0]
    again = revived(made["decode_level_0"])(weights, codes)
    np.testing.assert_allclose(again, sound, rtol=1e-5, atol=1e-5)
    assert again.shape == audio.shape and np.std(again) > 1e-3


# --- the command and the example ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(autoencoder, exported, tmp_path_factory):
    """A model directory of a VQ-VAE and two priors."""
    folder = tmp_path_factory.mktemp("model")
    params, books = autoencoder
    one = np.ones((), np.float32)
    trees = {"ema": params, "extra": VQVAEExtra(books, Bandwidth(one, one, one))}
    config = {"experiment": to_dict(VQVAEExperiment(VQVAE, 64))}
    checkpoint.save_mapped(folder / "vqvae", 5, trees, config)
    note = {"fingerprint": fingerprint(VQVAE, params, books)}
    runs = {}
    for kind in ("encoder", "upsampler"):
        p = exported(kind)
        runs[p.config.level] = folder / kind
        config = {"experiment": to_dict(PriorExperiment(p.config)), **note}
        checkpoint.save_mapped(folder / kind, 5, {"ema": p.params}, config)
    Vocabulary.build(["somebody"], ["a genre"]).save(folder / "labels.json")
    write_model_dir(folder, folder / "vqvae", runs, folder / "labels.json")
    return folder


def export_arguments(model, out):
    return ["export", "--format", "stablehlo", "--model", str(model), "--out", str(out)]


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "functions"
    command.main(export_arguments(model, out))
    return out


def test_the_manifest_says_what_is_there(folder, exported):
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert manifest["files"].keys() == files
    for name, file in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert file == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert len({(folder / name).stat().st_mode for name in files}) == 1
    functions = {f"{do}code_level_{level}" for do in ("en", "de") for level in range(3)}
    functions |= {f"prior_level_{level}.{do}" for level in (1, 2) for do in ("start", "step")}
    assert manifest["artefacts"].keys() == functions
    assert (manifest["jax"], manifest["hops"]) == (jax.__version__, [2, 4, 8])
    start = manifest["artefacts"]["prior_level_2.start"]
    assert start["platforms"] == ["cpu", "cuda", "tpu"]
    assert start["arguments"]["batch"]["lyrics"] == {"dtype": "int32", "shape": ["b", 8]}
    assert start["arguments"]["given"] == {"dtype": "int32", "shape": []}
    step = manifest["artefacts"]["prior_level_2.step"]
    assert step["results"]["logits"] == {"dtype": "float32", "shape": ["b", CODES]}
    assert step["results"]["caches"] == step["arguments"]["caches"] == start["results"]["caches"]
    encode = manifest["artefacts"]["encode_level_1"]
    assert encode["arguments"] == {"audio": {"dtype": "float32", "shape": ["b", "4*t"]}}
    assert manifest["priors"]["1"]["codes_per_upper_code"] == 2
    saved = load_file(folder / step["weights"])
    wanted = flat(exported("encoder").params)
    assert saved.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(saved[name], array, name)


EXAMPLE = Path(command.__file__).parent / "examples" / "run_stablehlo.py"
ALONE = """
import importlib, runpy, sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("jukejax", "experiments", "data_pipeline", "flax", "orbax"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)
sys.meta_path.insert(0, Refuse())
try:
    import jukejax
except ModuleNotFoundError as error:
    print(error)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_example_runs_without_jukejax(folder, tmp_path):
    line = [sys.executable, "-I", "-c", ALONE, str(EXAMPLE), str(folder), "a.wav", "99"]
    done = subprocess.run(line, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("jukejax is not here\n")
    assert "level 2" in done.stdout and "drawn [" in done.stdout
    sound, rate = soundfile.read(tmp_path / "a.wav")
    assert (sound.shape, rate) == ((T * 8,), 44_100) and np.std(sound) > 1e-3


def test_what_does_not_fit_is_refused_before_anything_is_written(model, folder, tmp_path):
    with pytest.raises(SystemExit, match="not empty"):
        command.main(export_arguments(model, folder))
    value = json.loads((model / "model.json").read_text())
    other = tmp_path / "other"
    runs = {2: model / value["priors"]["1"]}
    write_model_dir(other, model / "vqvae", runs, model / "labels.json")
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match="it is a prior of level 1"):
        command.main(export_arguments(other, out))
    assert not out.exists()
