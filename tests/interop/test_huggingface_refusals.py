"""Directories and models that HuggingFace's format does not support: a sentence, no files."""

import json
import struct
from dataclasses import replace

import pytest
from small_model import PRIORS, VQVAE, assert_refused, changed, copied, export, run, save

from jukejax.errors import InteropError
from jukejax.interop import huggingface, huggingface_settings, safetensors_files, torch_files


def set_at(*path, to):
    def change(config):
        *parents, last = path
        for part in parents:
            config = config[part]
        config[last] = to

    return change


@pytest.mark.parametrize(
    "change, match",
    [
        (set_at("model_type", to="bert"), "model_type 'bert'"),
        (set_at("nb_priors", to=10**9), "1000000000 priors for a VQ-VAE of 3"),
        (set_at("nb_priors", to=True), "nb_priors is True, expected int"),
        (set_at("prior_config_list", to=[{}]), "nb_priors = 3, but describes fewer"),
        (lambda c: c.pop("prior_1"), "nb_priors = 3, but describes fewer"),
        (set_at("prior_1", to=[]), r"prior 1 is \[\], expected an object"),
        (set_at("prior_0", "mask", to=False), 'prior 0 does not say "mask": true'),
        (lambda c: c["prior_2"].pop("mask"), 'prior 2 does not say "mask": true'),
        (set_at("prior_0", "encoder_config", "mask", to=False), "encoder_config does not say"),
        (set_at("prior_0", "encoder_config", to=None), "encoder_config is None, expected an"),
        (set_at("prior_0", "attention_pattern", to="full_dense_attention"), "is none of raw_col"),
        (set_at("prior_0", "act_fn", to="relu"), "prior 0 says act_fn = 'relu'"),
        (set_at("prior_0", "metadata_dims", to=[3]), "no pair"),
        (set_at("prior_0", "lyric_vocab_size", to=81), "81 lyric characters"),
        (set_at("prior_0", "num_layers", to=10**9), "1000000000; integers up to 512"),
        (set_at("prior_0", "n_heads", to="two"), "n_heads is 'two', expected int"),
        (set_at("prior_1", "conv_res_scale", to=[None, True, False]), "conv_res_scale is"),
        (set_at("prior_1", "blocks", to=5), "blocks 5 does not divide"),
        (set_at("prior_1", "hidden_size", to=16), r"(?s)priors.1.prior.embed_tokens.weight is"),
        (set_at("prior_1", "merged_decoder", to=[]), "merged_decoder is"),
        (set_at("prior_1", "mlp_multiplier", to=1e308), "describe no model"),
        (set_at("prior_2", "metadata_dims", to=[-1, 5]), "integers up to 1048576"),
        (set_at("prior_2", "res_dilation_growth_rate", to=0), "describe no model"),
        (set_at("vqvae_config", to=7), "vqvae_config is 7"),
        (set_at("vqvae_config", "levels", to=2), "levels = 2"),
        (set_at("vqvae_config", "res_strides_t", to=[4, 2, 2]), "strides_t"),
        (set_at("vqvae_config", "conv_res_scale", to=True), "conv_res_scale = True"),
        (set_at("vqvae_config", "lmu", to=float("nan")), "lmu is nan"),
    ],
)
def test_settings_that_cannot_be_taken(directory, tmp_path, change, match):
    assert_refused(changed(directory, tmp_path / "copy", change), tmp_path, match)


def test_settings_that_are_none(directory, tmp_path):
    copy = copied(directory, tmp_path / "copy")
    for text in ("{", "[" * 100_000, "[]"):
        (copy / "config.json").write_text(text)
        assert_refused(copy, tmp_path, "is no JSON|has model_type None")
    (copy / "config.json").unlink()
    assert_refused(copy, tmp_path, "config.json is missing")


def header(value, data=b"\0" * 8):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\2",
        struct.pack("<Q", 2**60) + b"{}",
        header(b"no json"),
        header({"a": tensor("F32", [3], 0, 8)}),
        header({"a": tensor("F32", [2], -8, 0)}),
        header({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 0, 8)}),
        header({"a": tensor("F32", [2**62, 2**62], 0, 8)}),
        header({"a": tensor("F32", [2], 8, 16)}),
        header({"a": tensor("F32", [2], 0, 8)}, b"\0" * 7),
        header({"a": tensor("BF16", [4], 0, 8)}),
        header({"a": tensor("I64", [1], 0, 8)}),
    ],
)
def test_safetensors_that_lie(directory, tmp_path, data):
    copy = copied(directory, tmp_path / "copy")
    (copy / huggingface.WEIGHTS).write_bytes(data)
    assert_refused(copy, tmp_path, "cut short or damaged|only F32 and F16")


def test_weights_that_are_cut_short_missing_or_too_many(directory, tmp_path):
    copy = copied(directory, tmp_path / "copy")
    weights = copy / huggingface.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert_refused(copy, tmp_path, "cut short or damaged")
    tensors = safetensors_files.read(directory / huggingface.WEIGHTS)
    more = tensors | {"vqvae.more": tensors["vqvae.decoders.0.out.bias"]}
    del more["priors.2.prior.pos_emb.pos_emb"]
    save(weights, more)
    assert_refused(copy, tmp_path, r"(?s)missing  priors.2.prior.pos_emb.*extra    vqvae.more")
    weights.unlink()
    assert_refused(copy, tmp_path, "has no weights")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    "places, match",
    [
        ({"a": "../secret"}, "no plain name"),
        ({"a": "/etc/passwd"}, "no plain name"),
        ({"a": "sub/x"}, "no plain name"),
        ({"a": ".."}, "no plain name|is missing"),
        ({"a": "a\0b"}, "no plain name"),
        ({"a": ""}, "no plain name|is missing"),
        ({"a": "gone"}, "gone, which .* names, is missing"),
        ({"a": 3}, "no index"),
        ({}, "no index"),
        ([], "no index"),
    ],
)
def test_indices_that_lie(directory, tmp_path, name, places, match):
    copy = copied(directory, tmp_path / "copy")
    (copy / huggingface.WEIGHTS).rename(tmp_path / "secret")
    (copy / f"{name}.index.json").write_text(json.dumps({"weight_map": places}))
    assert_refused(copy, tmp_path, match)


def test_an_index_and_its_files_must_agree(directory, tmp_path):
    copy = copied(directory, tmp_path / "copy")
    (copy / huggingface.WEIGHTS).rename(copy / "shard")
    places = dict.fromkeys(safetensors_files.read(copy / "shard"), "shard")
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places | {"vqvae.more": "shard"}}))
    assert_refused(copy, tmp_path, "differ in 1 tensors, such as vqvae.more")


def test_digests_are_checked(directory, tmp_path):
    right = torch_files.sha256(directory / huggingface.WEIGHTS)
    assert_refused(directory, tmp_path, "download it again", "--sha256", "0" * 64)
    assert_refused(directory, tmp_path, "2 digests for 1 files", "--sha256", right, right)


@pytest.mark.parametrize(
    "vqvae, change, match",
    [
        ({}, {2: {"attn_order": 6}}, "prior 2 has attn_order 6"),
        ({}, {1: {"attn_order": 0}}, "prior 1 has attn_order 0"),
        ({}, {2: {"lyrics": replace(PRIORS[2].lyrics, attn_order=9)}}, "lyrics.attn_order 9"),
        ({}, {0: {"labels": None}}, "some priors have labels"),
        ({}, {2: None}, r"levels \[0, 1\]; the port starts at the highest"),
        ({}, {1: None}, r"levels \[0, 2\]"),
        ({"downs": (3, 2, 1)}, {}, r"stages are \(3, 2, 1\)"),
        ({"downs": (5, 3), "multipliers": (1, 1)}, {}, "has 2 levels"),
        (
            {},
            {level: {"labels": None} for level in (0, 1)}
            | {2: {"labels": None, "lyrics": replace(PRIORS[2].lyrics, prefix=True)}},
            "lyrics as a prefix, but no labels",
        ),
    ],
)
def test_models_that_the_port_does_not_support(vqvae, change, match):
    priors = {
        level: replace(config, **(change.get(level) or {}))
        for level, config in PRIORS.items()
        if change.get(level, {}) is not None
    }
    with pytest.raises(InteropError, match=match):
        huggingface_settings.check(replace(VQVAE, **vqvae), priors)


def test_nothing_is_exported_of_a_model_that_the_port_does_not_support(released, tmp_path):
    prior = released["prior_level_1"]
    run(
        "import", "--format", "openai", "--vqvae", released["vqvae"], "--prior", prior,
        "--out", tmp_path / "model",
    )  # fmt: skip
    with pytest.raises(SystemExit, match="the port starts at the highest"):
        export(tmp_path / "model", tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"model"}


def test_a_directory_is_not_written_over(there):
    with pytest.raises(SystemExit, match="not empty"):
        export(there / "model", there / "directory")
