"""OpenAI's settings (`hps` in a checkpoint) as our configs, and our configs as theirs.

A setting that our models do not support is an error that names it. A prior's file repeats defaults
for its VQ-VAE, not the VQ-VAE's own settings: hops, levels and sample rate come from the VQ-VAE
that it is imported with, the number of codes from its token table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jukejax.config import PriorConfig, PriorExperiment, VQVAEConfig, VQVAEExperiment, from_dict
from jukejax.errors import InteropError

Settings = Mapping[str, Any]

# OpenAI's name -> our field, where the value is the same; read in both directions
_VQVAE = {
    "sr": "sample_rate", "width": "width", "depth": "depth",
    "dilation_growth_rate": "dilation_growth", "emb_width": "emb_width", "l_bins": "codes",
    "l_mu": "codebook_decay", "revival_threshold": "restart_threshold",
}  # fmt: skip
_LOSS = {k: k for k in ("linf_k", "spectral", "multispectral", "commit")}
_MIX = {"lmix_l1": "l1", "lmix_l2": "l2", "lmix_linf": "linf"}
_PRIOR = {
    "level": "level", "n_ctx": "n_ctx", "prior_width": "width", "prior_depth": "depth",
    "heads": "heads", "attn_order": "attn_order", "m_attn": "attn_ratio", "m_mlp": "mlp_ratio",
    "init_scale": "init_scale", "res_scale": "scale_residual",
}  # fmt: skip
_LABELS = {
    "max_bow_genre_size": "max_genres", "t_bins": "timing_bins", "min_duration": "min_seconds",
    "max_duration": "max_seconds",
}  # fmt: skip
_LYRICS = {
    "n_tokens": "tokens", "single_enc_dec": "prefix", "prime_loss_fraction": "loss_fraction",
    "prime_width": "width", "prime_depth": "depth", "prime_heads": "heads",
    "prime_attn_order": "attn_order", "prime_init_scale": "init_scale",
}  # fmt: skip
_UPPER = {
    "cond_width": "width", "cond_depth": "depth", "cond_dilation_growth_rate": "dilation_growth",
    "cond_dilation_cycle": "dilation_cycle", "cond_res_scale": "scale_residual",
}  # fmt: skip
_LARGEST = {
    **dict.fromkeys(("prior_depth", "prime_depth", "depth", "cond_depth"), 512),
    **dict.fromkeys(("levels", "level", "downs_t", "hvqvae_multipliers"), 8),
    **dict.fromkeys(("n_ctx", "n_tokens", "l_bins", "linf_k", "blocks", "prime_blocks"), 2**20),
    **dict.fromkeys(("y_bins", "n_vocab"), 2**20),
    "sample_length": 2**40,
    **dict.fromkeys(("prior_width", "prime_width", "width", "cond_width", "emb_width"), 2**17),
}
_SEVERAL = ("downs_t", "hvqvae_multipliers", "y_bins")  # a number each level, or each table
_ALPHABETS = {80: "v2", 79: "v3"}


def _take(where: str, hps: Settings, names: Mapping[str, str]) -> dict[str, Any]:
    missing = [name for name in names if name not in hps]
    if missing:
        raise InteropError(
            f"The settings in {where} lack {', '.join(missing)}; name a preset to use instead."
        )
    return {ours: hps[theirs] for theirs, ours in names.items()}


def _check_sizes(where: str, hps: Settings) -> None:
    """Raises InteropError for sizes that no model has, before anything is built from them."""
    for name in [name for name in _LARGEST if hps.get(name) is not None]:
        value, most = hps[name], _LARGEST[name]
        several = name in _SEVERAL and isinstance(value, (tuple, list))
        for number in value if several else (value,):
            if not isinstance(number, int) or not 0 <= number <= most:
                raise InteropError(
                    f"{where} says {name} = {value!r:.80}; integers up to {most} are supported."
                )


def require(where: str, settings: Settings, **wanted: Any) -> None:
    """Raises InteropError where a setting is there and is not as wanted."""
    for name, value in wanted.items():
        if settings.get(name, value) != value:
            raise InteropError(
                f"{where} says {name} = {settings[name]!r:.80}; only {value!r} is supported."
            )


def vqvae_experiment(hps: Settings, where: str) -> VQVAEExperiment:
    """The VQ-VAE that settings describe, with the length of its training chunks where given."""
    _check_sizes(where, hps)
    levels = hps.get("levels", 0)
    require(where, hps, m_conv=1.0, dilation_cycle=None, use_bottleneck=True)
    require(where, hps, vqvae_reverse_decoder_dilation=True, strides_t=(2,) * levels)
    if hps.get("spectral"):
        require(where, hps, use_nonrelative_specloss=True)
    fields = _take(where, hps, _VQVAE | {"downs_t": "downs", "hvqvae_multipliers": "multipliers"})
    fields["multipliers"] = fields["multipliers"] or (1,) * levels
    kind = hps.get("loss_fn")
    alone = {name: float(name == kind) for name in ("l1", "l2", "linf")}
    weights = _take(where, hps, _MIX) if kind == "lmix" else alone
    fields["loss"] = weights | _take(where, hps, _LOSS)
    config = from_dict(VQVAEConfig, fields, f"the settings in {where}")
    top = config.hops[-1]
    samples = (hps.get("sample_length") or VQVAEExperiment.samples) // top * top
    return VQVAEExperiment(config, max(samples, top))


def prior_config(hps: Settings, vqvae: VQVAEConfig, rows: int, where: str) -> PriorConfig:
    """The prior that settings describe.

    Args:
      rows: of its token table: lyric characters (with a prefix) and codes.
    """
    _check_sizes(where, hps)
    require(where, hps, pos_init=False, copy_input=False, cond_m_conv=1.0)
    fields = _take(where, hps, _PRIOR)
    level = fields["level"]
    if level not in range(vqvae.levels):
        raise InteropError(f"{where} is of level {level}; the VQ-VAE has {vqvae.levels} levels.")
    if hps.get("labels"):
        bins = hps.get("y_bins") or (0, 0)
        if not isinstance(bins, (tuple, list)) or len(bins) != 2:
            raise InteropError(
                f"{where} says y_bins = {bins!r:.80}; numbers of genres and of artists are needed."
            )
        labels = _take(where, hps, _LABELS) | {"artists": bins[1], "genres": bins[0]}
        if level < vqvae.levels - 1:  # without timing, so the published upsamplers' spans are None
            labels = {name: value for name, value in labels.items() if value is not None}
        fields["labels"] = labels
    characters = 0
    if hps.get("use_tokens") and hps.get("n_tokens"):
        fields["lyrics"] = _lyrics(hps, where)
        characters = hps["n_vocab"] if fields["lyrics"]["prefix"] else 0
    if level < vqvae.levels - 1:
        ratio = vqvae.hops[level + 1] // vqvae.hops[level]
        fields["upper"] = _take(where, hps, _UPPER) | {"ratio": ratio}
    if rows <= characters:
        raise InteropError(f"{where} has no token table prior.x_emb.weight; it is no prior.")
    fields |= {
        "hop": vqvae.hops[level],
        "sample_rate": vqvae.sample_rate,
        "codes": rows - characters,
        "blocks": hps.get("blocks") or 1,
        "tied_output": not hps.get("merged_decoder"),
    }
    return from_dict(PriorConfig, fields, f"the settings in {where}")


def _lyrics(hps: Settings, where: str) -> dict[str, Any]:
    if hps.get("n_vocab") not in _ALPHABETS:
        raise InteropError(
            f"{where} has {hps.get('n_vocab')} lyric characters; 79 and 80 are supported."
        )
    fields = _take(where, hps, _LYRICS)
    if not fields["prefix"]:
        require(where, hps, prime_m_attn=hps.get("m_attn"), prime_m_mlp=hps.get("m_mlp"))
        require(where, hps, prime_res_scale=False, prime_pos_init=False)
    alphabet = _ALPHABETS[hps["n_vocab"]]
    return fields | {"alphabet": alphabet, "blocks": hps.get("prime_blocks") or 1}


def blocks_name(hps: Settings) -> str:
    """OpenAI's name of an upsampler's residual blocks, which depends on gradient checkpointing."""
    return "blocks" if hps.get("cond_c_res", 1) else "model"


def unpublished(config: PriorConfig) -> list[str]:
    """What a prior is conditioned on that no published model is, in words."""
    kinds = config.labels.kinds if config.labels else ()
    names = [kind.table for kind in kinds if kind.optional]
    unlike = [f"conditioning on {' and '.join(names)}"] if names else []
    if config.groups > 1:
        unlike.append(f"codes in groups of {config.groups}")
    if config.tracks:
        unlike.append(f"the tracks {' and '.join(x.name for x in config.tracks.tracks)}")
    if config.lyrics and config.lyrics.alphabet not in _ALPHABETS.values():
        kind = config.lyrics.alphabet.partition(":")[0]
        unlike.append(f"the lyric alphabet {kind!r} (theirs are v2 and v3)")
    return unlike


# --- our configs as settings ----------------------------------------------------------------------


def _give(config: Any, names: Mapping[str, str]) -> dict[str, Any]:
    return {theirs: getattr(config, ours) for theirs, ours in names.items()}


def settings(experiment: VQVAEExperiment | PriorExperiment) -> dict[str, Any]:
    """Settings that are read back as the same model."""
    if isinstance(experiment, VQVAEExperiment):
        return vqvae_settings(experiment.model, experiment.samples)
    return prior_settings(experiment.model)


def vqvae_settings(config: VQVAEConfig, samples: int) -> dict[str, Any]:
    """Settings that `vqvae_experiment` reads back as the same VQ-VAE.

    Raises:
      InteropError: the published format does not support the VQ-VAE.
    """
    if config.frames or config.groups > 1:
        raise InteropError(
            "OpenAI's format does not support a VQ-VAE with frames or groups. "
            "It can be exported with --format stablehlo."
        )
    return {
        **_give(config, _VQVAE),
        **_give(config.loss, _LOSS | _MIX),
        "loss_fn": "lmix",
        "levels": config.levels,
        "downs_t": config.downs,
        "strides_t": (2,) * config.levels,
        "hvqvae_multipliers": config.multipliers,
        "m_conv": 1.0,
        "dilation_cycle": None,
        "use_bottleneck": True,
        "vqvae_reverse_decoder_dilation": True,
        "sample_length": samples,
    }


def prior_settings(config: PriorConfig) -> dict[str, Any]:
    """Settings that `prior_config` reads back as the same prior.

    Raises:
      InteropError: the published format does not support the prior.
    """
    if unlike := unpublished(config):
        other = " It can be exported with --format stablehlo." if config.groups == 1 else ""
        raise InteropError(
            f"OpenAI's format does not support the prior of level {config.level}: "
            f"{'; '.join(unlike)}.{other}"
        )
    hps = _give(config, _PRIOR) | {
        "blocks": config.blocks,
        "merged_decoder": not config.tied_output,
        "labels": config.labels is not None,
        "use_tokens": config.lyrics is not None,
        "n_tokens": 0,
        "cond_c_res": 1,
        "cond_m_conv": 1.0,
        "pos_init": False,
        "copy_input": False,
        "sr": config.sample_rate,
    }
    if config.labels:
        hps |= _give(config.labels, _LABELS)
        hps |= {"y_bins": (config.labels.genres, config.labels.artists)}
    if config.lyrics:
        hps |= _give(config.lyrics, _LYRICS) | {
            "n_vocab": config.lyrics.vocabulary,
            "prime_blocks": config.lyrics.blocks,
            "prime_m_attn": config.attn_ratio,
            "prime_m_mlp": config.mlp_ratio,
            "prime_res_scale": False,
            "prime_pos_init": False,
        }
    if config.upper:
        hps |= _give(config.upper, _UPPER)
    return hps
