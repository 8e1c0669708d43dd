"""HuggingFace's directories: names, both ways bit for bit, every form of settings and weights."""

import json
from dataclasses import replace

import pytest
from small_model import (
    PRIORS,
    VQVAE,
    assert_refused,
    changed,
    config_of,
    copied,
    export,
    imported,
    run,
    save,
    save_torch,
)

from jukejax import presets
from jukejax.config import PriorExperiment
from jukejax.interop import (
    huggingface,
    huggingface_settings,
    openai,
    safetensors_files,
    torch_files,
)
from jukejax.label_kinds import ARTIST, GENRE
from jukejax.model_dir import read_model_dir
from jukejax.text.labels import Vocabulary
from jukejax.training.checkpoint import load_experiment

# --- names ----------------------------------------------------------------------------------------


NAMES = """
encoders.2.level_blocks.1.model.1.0.weight
    encoders.2.level_blocks.1.downsample_block.2.weight
encoders.2.level_blocks.0.model.2.1.model.3.model.1.bias
    encoders.2.level_blocks.0.downsample_block.5.resnet_block.3.conv1d_1.bias
encoders.0.level_blocks.0.model.3.bias
    encoders.0.level_blocks.0.proj_out.bias
decoders.1.level_blocks.1.model.0.weight
    decoders.1.level_blocks.1.proj_in.weight
decoders.1.level_blocks.1.model.2.0.model.7.model.3.bias
    decoders.1.level_blocks.1.upsample_block.2.resnet_block.7.conv1d_2.bias
decoders.0.level_blocks.0.model.3.1.weight
    decoders.0.level_blocks.0.upsample_block.5.weight
decoders.2.out.weight
    decoders.2.out.weight
bottleneck.level_blocks.2.k
    bottleneck.level_blocks.2.codebook
conditioner_blocks.0.x_emb.weight
    conditioner_blocks.embed_tokens.weight
conditioner_blocks.0.cond.model.2.0.blocks.15.model.3.weight
    conditioner_blocks.upsampler.upsample_block.2.resnet_block.15.conv1d_2.weight
conditioner_blocks.0.cond.model.2.0.model.15.model.3.weight
    conditioner_blocks.upsampler.upsample_block.2.resnet_block.15.conv1d_2.weight
conditioner_blocks.0.cond.model.1.1.bias
    conditioner_blocks.upsampler.upsample_block.1.bias
conditioner_blocks.0.ln.weight
    conditioner_blocks.layer_norm.weight
prior.transformer._attn_mods.18.attn.c_enc_kv.w
    prior.transformer._attn_mods.18.attn.c_enc_kv.weight
prior.transformer._attn_mods.3.ln_1.bias
    prior.transformer._attn_mods.3.layer_norm_1.bias
prior.x_out.weight
    prior.fc_proj_out.weight
prior.start_token
    prior.start_token
prime_prior.x_emb.weight
    encoder.embed_tokens.weight
prime_state_proj.b
    encoder.proj_in.bias
prime_state_ln.weight
    encoder.final_layer_norm.weight
prime_x_out.weight
    encoder.lm_head.weight
y_emb.artist_emb.emb.weight
    metadata_embedding.artist_emb.weight
y_emb.total_length_emb.emb.weight
    metadata_embedding.total_length_emb.emb.weight
"""  # OpenAI's, then the port's


def test_names_by_example():
    words = NAMES.split()
    assert len(words) == 46
    for name, theirs in zip(words[::2], words[1::2], strict=True):
        assert huggingface.renamed(name) == theirs


@pytest.mark.parametrize("config", [VQVAE, *PRIORS.values()])
def test_no_two_tensors_get_one_name(config):
    names = openai.expected(config, openai.table(config))
    assert len({huggingface.renamed(name) for name in names}) == len(names)


# --- there and back -------------------------------------------------------------------------------


def assert_same(before, after):
    """Asserts that two mappings have the same tensors, bit for bit."""
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype, name
        assert tensor.read().tobytes() == after[name].read().tobytes(), name


@pytest.fixture(scope="module")
def model(directory, tmp_path_factory):
    return imported(directory, tmp_path_factory.mktemp("model") / "m")


def test_from_openai_through_both_and_back(released, model, tmp_path):
    run("export", "--format", "openai", "--model", model, "--out", tmp_path)
    for name, path in released.items():
        assert_same(
            torch_files.read(path).tensors, torch_files.read(tmp_path / f"{name}.pth.tar").tensors
        )


def test_what_is_imported_is_what_was_exported(model):
    found = {level: load_experiment(model / f"prior_level_{level}")[0].model for level in PRIORS}
    assert found == PRIORS
    vqvae, note = load_experiment(model / "vqvae")
    assert (vqvae.model, vqvae.samples) == (VQVAE, 64)
    assert note["origin"]["format"] == "huggingface"


def test_there_and_back(directory, model, tmp_path):
    back = export(model, tmp_path / "back")
    before, after = (safetensors_files.read(f / huggingface.WEIGHTS) for f in (directory, back))
    assert {t.dtype.name for t in before.values()} == {"float16", "float32"}
    assert_same(before, after)
    assert {f.name for f in back.iterdir()} == {"config.json", "model.safetensors"}
    assert config_of(directory) == config_of(back)


def test_levels_are_counted_from_the_top(released, directory):
    tensors = safetensors_files.read(directory / huggingface.WEIGHTS)
    for level in PRIORS:
        wanted = torch_files.read(released[f"prior_level_{level}"]).tensors["prior.pos_emb.pos_emb"]
        found = tensors[f"priors.{2 - level}.prior.pos_emb.pos_emb"]
        assert wanted.read().tobytes() == found.read().tobytes()


@pytest.mark.parametrize("left", ["embed_tokens", "fc_proj_out"])
def test_a_tied_output_stored_once_goes_back_once(directory, tmp_path, left):
    once = copied(directory, tmp_path / "once")
    tensors = safetensors_files.read(directory / huggingface.WEIGHTS)
    for i in (1, 2):  # the tied priors
        del tensors[f"priors.{i}.prior.{left}.weight"]
    save(once / huggingface.WEIGHTS, tensors)
    back = export(imported(once, tmp_path / "model"), tmp_path / "back")
    assert_same(tensors, safetensors_files.read(back / huggingface.WEIGHTS))


# --- forms ----------------------------------------------------------------------------------------


def opened(directory):
    """The models of a directory as their tensors."""
    return [model.file.tensors for model in huggingface.open_directory(directory).models]


@pytest.mark.parametrize(
    "name, writer", [("model.safetensors", save), ("pytorch_model.bin", save_torch)]
)
@pytest.mark.parametrize("shards", [1, 3])
def test_every_form_of_weights(directory, tmp_path, name, writer, shards):
    copy = copied(directory, tmp_path / "copy")
    (copy / huggingface.WEIGHTS).unlink()
    tensors = safetensors_files.read(directory / huggingface.WEIGHTS)
    stem, suffix = name.split(".")
    names = [name] if shards == 1 else [f"{stem}-{i + 1:05}-of-00003.{suffix}" for i in range(3)]
    places = {tensor: names[i % shards] for i, tensor in enumerate(tensors)}
    for file in names:
        writer(copy / file, {n: t for n, t in tensors.items() if places[n] == file})
    if shards > 1:
        (copy / f"{name}.index.json").write_text(json.dumps({"weight_map": places}))
    for a, b in zip(opened(directory), opened(copy), strict=True):
        assert_same(a, b)


def as_list(config):
    config["prior_config_list"] = [config.pop(f"prior_{i}") for i in range(3)]


def without_defaults(config):
    """The port leaves out of a file what it would take anyway."""
    assert config.pop("nb_priors") == 3
    assert config.pop("sampling_rate") == 44100 and config.pop("max_duration") == 600
    assert config["vqvae_config"].pop("multipliers") == [2, 1, 1]
    assert config["prior_0"].pop("merged_decoder") is True
    assert config["prior_1"].pop("attention_multiplier") == 0.25


@pytest.mark.parametrize("change", [as_list, without_defaults])
def test_every_spelling_of_settings(directory, tmp_path, change):
    copy = changed(directory, tmp_path / "copy", change)
    found = huggingface.open_directory(copy)
    configs = [prior.experiment.model for prior in found.models[1:]]
    assert configs == [PRIORS[level] for level in (2, 1, 0)]


def test_published_shapes_get_the_published_blocks(directory, tmp_path, monkeypatch, capsys):
    def change(config):
        config["prior_0"]["blocks"] = 2

    copy = changed(directory, tmp_path / "copy", change)
    _, top, *_ = huggingface.open_directory(copy).models
    assert top.experiment.model.blocks == 2
    monkeypatch.setattr(presets, "PRESETS", {"top": lambda: PriorExperiment(PRIORS[2])})
    out = imported(copy, tmp_path / "model")
    assert load_experiment(out / "prior_level_2")[0].model == PRIORS[2]
    assert "shapes of top, so it gets the blocks" in capsys.readouterr().out


def test_a_published_prior_that_says_64_blocks_gets_128():
    known = presets.get("prior_5b").model
    shapes = openai.preset_tensors("prior_5b")
    for blocks in (64, 128):
        found, name = huggingface_settings.as_published(replace(known, blocks=blocks), shapes)
        assert (found, name) == (known, "prior_5b")
    fewer = replace(known, blocks=64, labels=replace(known.labels, artists=5))
    assert huggingface_settings.as_published(fewer, shapes | {"y": (5,)}) == (fewer, "")


@pytest.mark.parametrize("top", ["prior_5b", "prior_5b_lyrics", "prior_1b_lyrics"])
def test_settings_of_the_published_models_come_back(top):
    names = (top, "upsampler_level_1", "upsampler_level_0")
    priors = [replace(presets.get(n).model, dtype="float32", remat="none") for n in names]
    config = huggingface_settings.to_config(presets.vqvae(), {p.level: p for p in priors})
    config = json.loads(json.dumps(config))
    assert huggingface_settings.vqvae_experiment(config, "f").model == presets.vqvae().model
    found = huggingface_settings.prior_configs(config, presets.vqvae().model, "f")
    timing = ("timing_bins", "min_seconds", "max_seconds")  # the top's; upsamplers have no timing
    same = {name: getattr(priors[0].labels, name) for name in timing}
    assert found == [replace(p, labels=replace(p.labels, **same)) for p in priors]


# --- label names ----------------------------------------------------------------------------------


def names_of(model, level):
    return Vocabulary.load(read_model_dir(model).labels(level))


def test_names_of_labels_go_along(directory, tmp_path):
    """By the default versions of the tokenizer the top level has the names without ".v2"."""
    copy = copied(directory, tmp_path / "copy")
    artists = {"nobody": 0, "abba": 2, "björk": 1, "abba again": 2, "x": 3, "y": 4}
    v2 = {"ab_ba": 3, "p": 1, "q": 2, "r": 4}
    both = artists | {f"{name}.v2": i for name, i in v2.items()}
    (copy / "artists.json").write_text(json.dumps(both))
    genres = {"pop": 1, "rock": 2, "rock.v2": 1, "pop.v2": 2}
    (copy / "genres.json").write_text(json.dumps(genres))
    model = imported(copy, tmp_path / "model")
    top, low = names_of(model, 2), names_of(model, 0)
    assert (top.rule, low.rule, names_of(model, 1)) == ("v3", "v2", low)
    assert [top.ids(ARTIST, n) for n in ("Björk", "ABBA", "Abba Again", "p")] == [1, 2, 2, 0]
    assert [low.ids(ARTIST, n) for n in ("AB/BA", "abba")] == [3, 0]
    assert low.ids(GENRE, ["Pop Rock"], 2).tolist() == [2, 1]

    back = export(model, tmp_path / "back")
    told = json.loads((back / "genres.json").read_text())
    assert {k: v for k, v in told.items() if v} == genres
    again = imported(back, tmp_path / "again")
    for level in (0, 1, 2):
        found = names_of(again, level)
        assert all(found.ids(ARTIST, n) == names_of(model, level).ids(ARTIST, n) for n in both)
    characters = json.loads((back / "lyrics.json").read_text())
    assert (len(characters), characters["A"], characters["+"]) == (79, 1, 70)
    tokenizer = json.loads((back / "tokenizer_config.json").read_text())
    assert (tokenizer["version"], tokenizer["n_genres"]) == (["v3", "v2", "v2"], 3)


def test_names_of_other_tables_are_refused(directory, tmp_path):
    copy = copied(directory, tmp_path / "copy")
    (copy / "artists.json").write_text(json.dumps({"x.v2": 999, "a": 1, "b": 2, "c": 3, "d": 4}))
    (copy / "genres.json").write_text(json.dumps({"pop": 1, "rock": 2}))
    assert_refused(copy, tmp_path, "'x.v2' has the id 999")
    (copy / "artists.json").write_text(json.dumps({"a": 1}))
    assert_refused(copy, tmp_path, "names for 2 of the model's 5 ids")
    (copy / "tokenizer_config.json").write_text('{"version": ["v2"]}')
    assert_refused(copy, tmp_path, "expected one a prior")
