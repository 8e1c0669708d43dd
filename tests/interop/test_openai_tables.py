"""OpenAI's names, shapes and settings against our models, without any file."""

from dataclasses import replace

import numpy as np
import pytest

from jukejax import presets
from jukejax.config import ConfigError, FramesConfig
from jukejax.errors import InteropError
from jukejax.interop import openai, openai_settings
from jukejax.interop.openai import Entry
from jukejax.models.bottleneck import restored_book

OURS = "vqvae", "demo", "songs", "renderer"  # without settings of the published format
PRIORS = [name for name in presets.PRESETS if not any(word in name for word in OURS)]
VQVAE = presets.vqvae()


@pytest.mark.parametrize(
    "name, tensors, numbers",
    [
        ("vqvae", 669, 1_878_979),
        ("upsampler_level_0", 1006, 981_298_176),
        ("upsampler_level_1", 1006, 981_298_176),
        ("prior_5b", 872, 5_060_452_800),
        ("prior_5b_lyrics", 1194, 5_640_506_800),
        ("prior_1b_lyrics", 872, 942_643_200),
    ],
)
def test_published_files_have_so_many_tensors_and_numbers(name, tensors, numbers):
    config = presets.get(name).model
    table = openai.vqvae_entries if name == "vqvae" else openai.prior_entries
    shapes = openai.expected(config, table(config))
    assert len(shapes) == tensors
    once = shapes.keys() - openai.shared(config).keys()
    assert sum(np.prod(shapes[n], dtype=int) for n in once) == numbers


def test_names_by_example():
    """One of each kind, with the shapes of the published files."""
    prior, upsampler = (presets.get(n).model for n in ("prior_5b_lyrics", "upsampler_level_1"))
    shapes = openai.expected(prior, openai.prior_entries(prior))
    assert shapes["prior.transformer._attn_mods.18.attn.c_enc_kv.w"] == (4800, 2400)
    assert shapes["prior.transformer._attn_mods.18.attn.c_attn.w"] == (4800, 1200)
    assert shapes["prior.transformer._attn_mods.17.attn.c_attn.w"] == (4800, 3600)
    assert shapes["prime_prior.transformer._attn_mods.17.mlp.c_fc.b"] == (1280,)
    assert shapes["prime_state_proj.w"] == (1280, 4800)
    assert shapes["prior.x_out.weight"] == (2048, 4800)
    shapes = openai.expected(upsampler, openai.prior_entries(upsampler))
    up = "conditioner_blocks.0.cond.model"
    assert shapes[f"{up}.0.weight"] == (1024, 1920, 3)
    assert shapes[f"{up}.2.0.blocks.15.model.3.weight"] == (1024, 1024, 1)
    assert shapes[f"{up}.2.1.weight"] == (1024, 1920, 4)
    other = openai.expected(upsampler, openai.prior_entries(upsampler, "model"))
    assert f"{up}.2.0.model.15.model.3.weight" in other and len(other) == len(shapes)


class InMemory:
    """A tensor as files hand them out."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def read(self):
        return self.array


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("layout", ["same", "transpose", "conv", "conv_up"])
@pytest.mark.parametrize("stacked", [False, True])
def test_gather_and_scatter_undo_each_other(layout, stacked, mapped, tmp_path):
    rng = np.random.default_rng(0)
    names = ("a", "b", "c") if stacked else ("a",)
    shape = (3, 5, 4) if layout.startswith("conv") else (3, 5)
    files = {n: InMemory(rng.normal(size=shape).astype(np.float16)) for n in names}
    entry = Entry(("leaf",), names, layout, stacked)
    leaf = openai.gather(entry, files, tmp_path if mapped else None)
    assert leaf.dtype == np.float16 and isinstance(leaf, np.memmap) == mapped
    assert openai.tensor_shape(entry, leaf.shape) == shape
    for i, name in enumerate(names):
        np.testing.assert_array_equal(openai.scatter(entry, leaf, i), files[name].array)


def test_a_leaf_of_both_dtypes_is_float32():
    files = {"a": InMemory(np.ones(3, np.float16)), "b": InMemory(np.ones(3, np.float32))}
    assert openai.gather(Entry(("leaf",), ("a", "b"), stacked=True), files).dtype == np.float32


def test_conv_up_reverses_the_taps():
    file = {"a": InMemory(np.arange(8, dtype=np.float32).reshape(1, 2, 4))}
    leaf = openai.gather(Entry(("leaf",), ("a",), "conv_up"), file)
    np.testing.assert_array_equal(leaf[:, 0, 0], [3, 2, 1, 0])


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIORS)
def test_settings_of_a_prior_come_back(name):
    config = replace(presets.get(name).model, dtype="float32", remat="none")
    hps = openai_settings.prior_settings(config)
    vqvae = presets.small_vqvae() if name.startswith("small") else VQVAE
    found = openai_settings.prior_config(hps, vqvae.model, config.vocabulary, "f")
    if config.lyric_prefix:  # its encoder's numbers are not used
        assert found.lyrics.prefix
        found = replace(found, lyrics=config.lyrics)
    assert found == config


def test_only_a_top_prior_needs_the_lengths_of_songs():
    """The published upsamplers' settings have None."""
    none = {"min_duration": None, "max_duration": None}
    config = presets.upsampler_level_0().model
    hps = openai_settings.prior_settings(config) | none
    found = openai_settings.prior_config(hps, VQVAE.model, 2048, "f")
    assert found.labels == config.labels
    hps = openai_settings.prior_settings(presets.prior_5b().model) | none
    with pytest.raises(ConfigError, match="min_seconds is None"):
        openai_settings.prior_config(hps, VQVAE.model, 2048, "f")


def test_a_prior_over_codes_of_groups_is_refused_without_the_hint_of_another_format():
    config = replace(presets.prior_5b().model, groups=4)
    with pytest.raises(InteropError, match=r"codes in groups of 4\.$"):
        openai_settings.prior_settings(config)


@pytest.mark.parametrize("vqvae", [VQVAE, presets.small_vqvae()], ids=["vqvae", "small_vqvae"])
def test_settings_of_a_vqvae_come_back(vqvae):
    hps = openai_settings.vqvae_settings(vqvae.model, vqvae.samples)
    found = openai_settings.vqvae_experiment(hps, "f")
    assert (found.model, found.samples) == (vqvae.model, vqvae.samples)


@pytest.mark.parametrize("change", [{"frames": FramesConfig()}, {"groups": 2}])
def test_a_vqvae_that_is_not_published_is_refused(change):
    with pytest.raises(InteropError, match="OpenAI's format does not support a VQ-VAE with frames"):
        openai_settings.vqvae_settings(replace(VQVAE.model, **change), VQVAE.samples)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"pos_init": True}, "pos_init"),
        ({"n_vocab": 81}, "81 lyric characters"),
        ({"level": 3}, "of level 3"),
        ({"prior_depth": 10**9}, "prior_depth = 1000000000"),
        ({"n_ctx": 2**40}, "n_ctx"),
        ({"prior_width": "wide"}, "prior_width = 'wide'; integers"),
        ({"y_bins": (1, 2, 3)}, "numbers of genres and of artists"),
        ({"y_bins": 7}, "numbers of genres and of artists"),
        ({"n_vocab": [80]}, "n_vocab"),
        ({"init_scale": float("nan")}, "expected finite float"),
        ({"m_attn": 1e308, "prime_m_attn": 1e308}, "infinity"),
        ({"attn_order": 5}, "attn_order 5"),
        ({"heads": 7}, "heads 7"),
    ],
)
def test_settings_that_cannot_be_taken(change, match):
    hps = openai_settings.prior_settings(presets.prior_5b_lyrics().model) | change
    with pytest.raises((InteropError, ConfigError), match=match):
        openai_settings.prior_config(hps, VQVAE.model, 2048, "f")


def test_settings_that_are_missing_are_named():
    hps = openai_settings.vqvae_settings(VQVAE.model, VQVAE.samples)
    del hps["l_mu"], hps["width"]
    with pytest.raises(InteropError, match="lack width, l_mu"):
        openai_settings.vqvae_experiment(hps, "f")
    with pytest.raises(InteropError, match="vqvae_reverse_decoder_dilation = False"):
        openai_settings.vqvae_experiment(hps | {"vqvae_reverse_decoder_dilation": False}, "f")
    with pytest.raises(InteropError, match=r"levels = \(3,\); integers"):
        openai_settings.vqvae_experiment(hps | {"levels": (3,)}, "f")


def test_every_tensor_that_differs_is_named():
    wanted = {"a": (1,), "b": (2,), "c": (3,)}
    with pytest.raises(InteropError) as error:
        openai.check("file", wanted, {"b": (2,), "c": (4,), "d": (5,)})
    message = str(error.value)
    for line in ("missing  a (1,)", "extra    d (5,)", "c is (4,), expected (3,)"):
        assert line in message
    assert " b " not in message


def test_restored_book_counts_each_code_alike():
    codes = np.arange(8, dtype=np.float32).reshape(4, 2)
    book = restored_book(codes, tokens=10)
    np.testing.assert_array_equal(book.counts, [2.5] * 4)
    np.testing.assert_array_equal(book.sums / book.counts[:, None], codes)
