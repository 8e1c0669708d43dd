"""The settings of HuggingFace's port of Jukebox (`config.json`) as our configs, and back.

Names and defaults are those of transformers 4.44. They are read through OpenAI's names, so that
both formats are checked alike. Where the port differs:

  - Its priors count from the top: prior 0 is our highest. Its VQ-VAE counts from the bottom.
  - Timing, sample rate and whether there are labels are the whole model's, whatever a prior's own
    entry says; only the top prior uses the timing. The number of genres is the whole model's too;
    there we take the entry's, since empty places change nothing.
  - `mask` is false where it is not given: a prior that sees the future. No Jukebox is that.
  - A config of the published 5B says `blocks` 64, but the model was trained with 128, and shapes do
    not show it. A model of published shapes gets the published blocks.
  - It supports three attention orders, and hops for three levels only, and takes the upsamplers'
    stages from the wrong end of the list.
  - It stores neither the weights of the VQ-VAE's losses nor when codes restart: an import has the
    published ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jukejax import presets
from jukejax.config import (
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.errors import InteropError
from jukejax.interop import openai, openai_settings
from jukejax.interop.openai_settings import require

Settings = dict[str, Any]
Table = Mapping[str, tuple[str | None, Any]]

_PATTERNS = {
    "raw_column_previous_row_attention": 2,
    "large_separated_enc_dec_w_lyrics": 10,
    "enc_dec_with_lyrics": 12,
}
_ORDERS = {order: name for name, order in _PATTERNS.items()}

# the port's name -> OpenAI's name where the value is the same, and the port's default; read in both
# directions
_SHARED: Table = {
    "nb_priors": (None, 3),
    "sampling_rate": ("sr", 44_100),
    "timing_dims": ("t_bins", 64),
    "min_duration": ("min_duration", 0.0),
    "max_duration": ("max_duration", 600.0),
    "metadata_conditioning": ("labels", True),
    "max_nb_genres": (None, 5),
}
_VQVAE: Table = {
    "res_conv_width": ("width", 32),
    "res_conv_depth": ("depth", 4),
    "res_dilation_growth_rate": ("dilation_growth_rate", 3),
    "res_dilation_cycle": ("dilation_cycle", None),
    "res_downs_t": ("downs_t", [3, 2, 2]),
    "res_strides_t": ("strides_t", [2, 2, 2]),
    "levels": ("levels", 3),
    "multipliers": ("hvqvae_multipliers", [2, 1, 1]),
    "embed_dim": ("emb_width", 64),
    "nb_discrete_codes": ("l_bins", 2048),
    "lmu": ("l_mu", 0.99),
    "commit": ("commit", 0.02),
    "sample_length": ("sample_length", 1_058_304),
    "act_fn": (None, "relu"),
    "conv_input_shape": (None, 1),
    "conv_res_scale": (None, None),
    "res_convolution_multiplier": (None, 1),
}
_STACK: Table = {  # of a prior; a lyric encoder's have the prefix "prime_" in OpenAI's settings
    "hidden_size": ("width", 2048),
    "num_layers": ("depth", 72),
    "n_heads": ("heads", 2),
    "blocks": ("blocks", 64),
    "attention_multiplier": ("m_attn", 0.25),
    "mlp_multiplier": ("m_mlp", 1.0),
    "init_scale": ("init_scale", 0.2),
    "attn_res_scale": ("res_scale", False),
    "attention_pattern": (None, "enc_dec_with_lyrics"),
    "act_fn": (None, "quick_gelu"),
    "mask": (None, False),
}
_PREFIXED = ("hidden_size", "num_layers")  # "prior_width" and "prior_depth" of a prior
_PRIOR: Table = {
    "n_ctx": ("n_ctx", 6144),
    **{
        name: (f"prior_{ours}" if name in _PREFIXED else ours, default)
        for name, (ours, default) in _STACK.items()
    },
    "merged_decoder": ("merged_decoder", True),
    "metadata_dims": ("y_bins", [604, 7898]),
    "max_nb_genres": ("max_bow_genre_size", 1),
    "nb_relevant_lyric_tokens": ("n_tokens", 384),
    "lyric_vocab_size": ("n_vocab", 80),
    "is_encoder_decoder": ("single_enc_dec", True),
    "encoder_loss_fraction": ("prime_loss_fraction", 0.4),
    "res_conv_width": ("cond_width", 128),
    "res_conv_depth": ("cond_depth", 3),
    "res_dilation_growth_rate": ("cond_dilation_growth_rate", 1),
    "res_dilation_cycle": ("cond_dilation_cycle", None),
    "conv_res_scale": (None, None),
    "res_convolution_multiplier": (None, 1),
    "res_strides_t": (None, [2, 2, 2]),
    "music_vocab_size": (None, 2048),
    "encoder_config": (None, None),
}
_ENCODER: Table = {
    name: (ours and f"prime_{ours}", default) for name, (ours, default) in _STACK.items()
}
_NULLABLE = {
    "encoder_config": dict,
    "conv_res_scale": bool,
    "res_dilation_cycle": int,
    "multipliers": list,
}
_ALL_FIELDS = PriorConfig(
    labels=LabelsConfig(), lyrics=LyricsConfig(prefix=True), upper=UpperConfig()
)


# --- settings as our configs ----------------------------------------------------------------------


def read(path: Path) -> Settings:
    """The settings of a directory's `config.json`.

    Raises:
      InteropError: it is no JSON object, or not that of a whole Jukebox.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InteropError(f"{path} is missing; name a directory of HuggingFace's.") from error
    except (ValueError, RecursionError) as error:
        raise InteropError(f"{path} is no JSON ({error}); download it again.") from error
    kind = value.get("model_type") if isinstance(value, dict) else None
    if kind != "jukebox":
        raise InteropError(
            f"{path} has model_type {kind!r:.80}, expected 'jukebox': name the directory of a "
            "whole JukeboxModel, with its VQ-VAE and priors."
        )
    return value


def _complete(where: str, given: Any, table: Table) -> Settings:
    """The settings of a table, of the right types, with the port's defaults."""
    if not isinstance(given, dict):
        raise InteropError(f"{where} is {given!r:.80}, expected an object.")
    settings: Settings = {name: given.get(name, d) for name, (_, d) in table.items()}
    for name, value in settings.items():
        kind = _NULLABLE.get(name) or type(table[name][1])
        valid = type(value) in ((int, float) if kind is float else (kind,))
        if kind is float:
            valid = valid and abs(value) <= sys.float_info.max  # false for NaN
        if kind is list:
            valid = valid and all(type(x) is int for x in value)
        if not valid and (value is not None or name not in _NULLABLE):
            raise InteropError(f"{where}: {name} is {value!r:.80}, expected {kind.__name__}.")
    return settings


def _to_openai(settings: Settings, table: Table) -> Settings:
    values = {ours: settings[theirs] for theirs, (ours, _) in table.items() if ours}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def vqvae_experiment(config: Settings, where: str) -> VQVAEExperiment:
    """The VQ-VAE that a model's settings describe.

    Raises:
      InteropError, ConfigError: our models do not support it.
    """
    rate = _complete(where, config, _SHARED)["sampling_rate"]
    where = f"{where}: vqvae_config"
    settings = _complete(where, config.get("vqvae_config", {}), _VQVAE)
    levels = len(settings["res_downs_t"])
    require(where, settings, act_fn="relu", conv_input_shape=1, levels=levels)
    scaled = {"conv_res_scale": bool(settings["conv_res_scale"])}
    require(where, settings | scaled, conv_res_scale=False, res_convolution_multiplier=1)
    published = openai_settings.vqvae_settings(VQVAEConfig(), 0)
    hps = published | _to_openai(settings, _VQVAE) | {"sr": rate}
    return openai_settings.vqvae_experiment(hps, where)


def prior_configs(config: Settings, vqvae: VQVAEConfig, where: str) -> list[PriorConfig]:
    """The priors that a model's settings describe, in either spelling, highest level first.

    Raises:
      InteropError, ConfigError: our models do not support one.
    """
    shared = _complete(where, config, _SHARED)
    count = shared["nb_priors"]
    if count not in range(1, vqvae.levels + 1):
        raise InteropError(f"{where}: {count} priors for a VQ-VAE of {vqvae.levels} levels.")
    listed = config.get("prior_config_list")
    if listed is None:
        listed = [config[name] for i in range(count) if (name := f"prior_{i}") in config]
    if not isinstance(listed, list) or len(listed) < count:
        raise InteropError(
            f"{where} says nb_priors = {count}, but describes fewer (in prior_config_list, or as "
            "prior_0, prior_1 and so on)."
        )
    return [
        _prior_config(shared, entry, vqvae, vqvae.levels - 1 - i, f"{where}: prior {i}")
        for i, entry in enumerate(listed[:count])
    ]


def _prior_config(
    shared: Settings, entry: Any, vqvae: VQVAEConfig, level: int, where: str
) -> PriorConfig:
    settings = _complete(where, entry, _PRIOR)
    genres = entry.get("max_nb_genres", shared["max_nb_genres"])
    if len(settings["metadata_dims"]) != 2:
        raise InteropError(f"{where}: metadata_dims is no pair of genres and artists.")
    strides = [2] * len(settings["res_strides_t"])
    require(where, settings, res_convolution_multiplier=1, res_strides_t=strides)
    hps = openai_settings.prior_settings(_ALL_FIELDS) | _to_openai(shared, _SHARED)
    hps |= _to_openai(settings, _PRIOR) | {"max_bow_genre_size": genres, "level": level}
    hps |= {"attn_order": _order(where, settings)}
    hps |= {"cond_res_scale": bool(settings["conv_res_scale"]), "use_tokens": hps["n_tokens"] > 0}
    if hps["use_tokens"] and not hps["single_enc_dec"]:
        inside = f"{where}: encoder_config"
        encoder = _complete(inside, settings["encoder_config"], _ENCODER)
        hps |= _to_openai(encoder, _ENCODER) | {"prime_attn_order": _order(inside, encoder)}
    prefix = hps["use_tokens"] and hps["single_enc_dec"]
    rows = settings["music_vocab_size"] + (hps["n_vocab"] if prefix else 0)
    return openai_settings.prior_config(hps, vqvae, rows, where)


def _order(where: str, settings: Settings) -> int:
    """The attention order of a transformer, which must be a causal one."""
    if not settings["mask"]:
        raise InteropError(
            f'{where} does not say "mask": true; without it transformers lets every position see '
            'the future. If the weights are those of a Jukebox, put "mask": true there.'
        )
    require(where, settings, act_fn="quick_gelu")
    if settings["attention_pattern"] not in _PATTERNS:
        raise InteropError(
            f"{where}: attention_pattern {settings['attention_pattern']!r:.80} is none of "
            f"{', '.join(_PATTERNS)}."
        )
    return _PATTERNS[settings["attention_pattern"]]


def as_published(
    config: PriorConfig, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[PriorConfig, str]:
    """A prior of published shapes with the published blocks, and the name of that preset."""
    for name in presets.PRESETS:
        known = presets.get(name).model
        if not isinstance(known, PriorConfig) or not openai.has_sizes(known):
            continue
        if (known.level, known.n_ctx, known.width) != (config.level, config.n_ctx, config.width):
            continue  # before the shapes, which take longer
        if openai.preset_tensors(name) != shapes:
            continue
        lyrics = config.lyrics
        if lyrics and known.lyrics:
            lyrics = replace(lyrics, blocks=known.lyrics.blocks)
        return replace(config, blocks=known.blocks, lyrics=lyrics), name
    return config, ""


# --- our configs as settings ----------------------------------------------------------------------


def check(vqvae: VQVAEConfig, priors: Mapping[int, PriorConfig]) -> None:
    """Raises InteropError that names everything that the port does not support."""
    wrong = []
    levels = list(range(vqvae.levels))
    if len(levels) != 3:
        wrong.append(f"the VQ-VAE has {len(levels)} levels; the port has 3")
    if len(set(vqvae.downs[1:])) > 1:
        wrong.append(f"the VQ-VAE's stages are {vqvae.downs}; the port's are equal above level 0")
    if not priors or sorted(priors) != levels[-len(priors) :]:
        wrong.append(f"the priors are of levels {sorted(priors)}; the port starts at the highest")
    if len({config.labels is None for config in priors.values()}) > 1:
        wrong.append("some priors have labels; in the port all have, or none")
    for level, config in priors.items():
        orders = {"attn_order": config.attn_order}
        if config.lyrics and config.lyric_encoder:
            orders["lyrics.attn_order"] = config.lyrics.attn_order
        for name, order in orders.items():
            if order not in _ORDERS:
                wrong.append(f"prior {level} has {name} {order}; the port has 2, 10 and 12")
        wrong += [f"prior {level}: {what}" for what in openai_settings.unpublished(config)]
        if config.lyric_prefix and not config.labels:
            wrong.append(f"prior {level} has lyrics as a prefix, but no labels")
    if wrong:
        raise InteropError(
            "HuggingFace's format does not support this model; nothing was written:\n  "
            + "\n  ".join(wrong)
        )


def to_config(vqvae: VQVAEExperiment, priors: Mapping[int, PriorConfig]) -> Settings:
    """The `config.json` of a whole model, in the spelling of the published ones (`prior_0`, ...).

    Raises:
      InteropError: the port does not support the model.
    """
    model = vqvae.model
    check(model, priors)
    ordered = [priors[level] for level in sorted(priors, reverse=True)]
    shared = _from_openai(openai_settings.prior_settings(ordered[0]), _SHARED)
    same = shared | {"res_downs_t": model.downs, "res_strides_t": (2,) * model.levels}
    hps = openai_settings.vqvae_settings(model, vqvae.samples)
    return {
        "architectures": ["JukeboxModel"],
        "model_type": "jukebox",
        "nb_priors": len(ordered),
        **shared,
        "max_nb_genres": max(c.labels.max_genres if c.labels else 0 for c in ordered),
        "vqvae_config": {"model_type": "jukebox_vqvae"} | _from_openai(hps, _VQVAE),
        **{f"prior_{i}": _prior(i, config) | same for i, config in enumerate(ordered)},
    }


def _from_openai(hps: Settings, table: Table) -> Settings:
    return {theirs: hps[ours] for theirs, (ours, _) in table.items() if ours in hps}


def _prior(index: int, config: PriorConfig) -> Settings:
    hps = openai_settings.prior_settings(config)
    common = {"model_type": "jukebox_prior", "mask": True}
    lyrics, encoder = config.lyrics, None
    if lyrics and not lyrics.prefix:
        encoder = common | _from_openai(hps, _ENCODER)
        encoder["attention_pattern"] = _ORDERS[lyrics.attn_order]
        encoder["n_ctx"] = encoder["nb_relevant_lyric_tokens"] = lyrics.tokens
    return {
        **common,
        "level": index,
        "attention_pattern": _ORDERS[config.attn_order],
        "is_encoder_decoder": False,
        **_from_openai(hps, _PRIOR),
        "conv_res_scale": hps.get("cond_res_scale"),
        "music_vocab_size": config.codes,
        "encoder_config": encoder,
    }
