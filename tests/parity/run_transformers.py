"""What transformers makes of a directory; runs in the parity environment, which has no jukejax.

python run_transformers.py DIRECTORY INPUTS.npz OUTPUT_FOLDER

Inputs: `audio` (N, S, 1) and `z_LEVEL`; of each prior, counted from the top, `codes_I` and, where
it has them, `upper_I` and `metadata_I` (total length, offset, length, artist, genres, lyrics).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import JukeboxModel, JukeboxPrior, JukeboxPriorConfig, JukeboxTokenizer


def logits(prior, codes, upper, metadata):
    """Logits (N, positions, vocabulary) of given codes, all positions at once."""
    above = [] if upper is None else [upper]
    audio, start, lyrics = prior.get_cond(above, metadata)
    if prior.is_encoder_decoder:
        tokens, audio = prior.prior_preprocess([lyrics, codes], [None, audio])
        return prior.prior(tokens, audio, start, get_sep_loss=True, get_preds=True)[1]
    encoded = prior.get_encoder_states(lyrics)
    return prior.prior(codes, audio, start, encoded, get_preds=True)[1]


def tokens(folder):
    """Of an artist, a genre and some words: what the tokenizer makes of them, by level."""
    tokenizer = JukeboxTokenizer.from_pretrained(folder)
    rows = tokenizer("Artist Two", "Rock", "Some words, 1 + 1!")["input_ids"]
    return [row[0].tolist() for row in rows]


@torch.no_grad()
def main(folder, inputs, out):
    given = {name: torch.from_numpy(array) for name, array in np.load(inputs).items()}
    model, info = JukeboxModel.from_pretrained(folder, output_loading_info=True)
    model.eval()
    found = {}
    codes = model.vqvae.encode(given["audio"])
    for level, z in enumerate(codes):
        found[f"encoded_{level}"] = z
        found[f"decoded_{level}"] = model.vqvae.decode([given[f"z_{level}"]], start_level=level)
    names = ("missing_keys", "unexpected_keys", "mismatched_keys")
    facts = {name: list(info[name]) for name in names}
    for i, prior in enumerate(model.priors):
        inputs = [given.get(f"{name}_{i}") for name in ("codes", "upper", "metadata")]
        found[f"logits_{i}"] = logits(prior, *inputs)
        # by its own entry of config.json, without what a whole model makes its priors share
        alone = JukeboxPrior(JukeboxPriorConfig.from_pretrained(folder, level=i)).eval()
        alone.load_state_dict(prior.state_dict())
        found[f"logits_alone_{i}"] = logits(alone, *inputs)
    if (folder / "artists.json").exists():
        facts["tokens"] = tokens(folder)
    np.savez(out / "found.npz", **{name: array.numpy() for name, array in found.items()})
    (out / "facts.json").write_text(json.dumps(facts))
    model.save_pretrained(out / "saved", safe_serialization=False, max_shard_size="100KB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
