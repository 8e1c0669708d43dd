"""Draws codes, decodes them to sound and encodes the sound, with JAX alone: no jukejax needed.

pip install jax flatbuffers safetensors soundfile
python run_stablehlo.py FOLDER OUT.wav CODES    # FOLDER of: convert export --format stablehlo
"""

import json
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import soundfile
from safetensors.numpy import load_file

folder, wav = Path(sys.argv[1]), sys.argv[2]
manifest = json.loads((folder / "manifest.json").read_text())
artefacts, (level, prior) = manifest["artefacts"], max(manifest["priors"].items())  # the top


def load(name):
    call = jax.export.deserialize(bytearray((folder / artefacts[name]["file"]).read_bytes())).call
    return jax.jit(call, donate_argnums=2 if name.endswith("step") else ()), load_file(
        folder / artefacts[name]["weights"]
    )


start, weights = load(prior["start"])
arguments = artefacts[prior["start"]]["arguments"]["batch"]  # two songs, all conditions unknown
batch = {k: np.zeros([2, *x["shape"][1:]], x["dtype"]) for k, x in arguments.items()}
if "total_length" in batch:
    batch["total_length"] += 180 * manifest["sample_rate"]
kept, caches, token = start(weights, batch, 0)
step, drawn, random = load(prior["step"])[0], [], np.random.default_rng(0)
for position in range(min(int(sys.argv[3]), prior["codes_in_window"])):
    logits, caches = step(weights, kept, caches, np.asarray(token), position)
    token = (logits + random.gumbel(size=logits.shape)).argmax(-1).astype(np.int32)
    drawn.append(np.maximum(token - prior["first_code"], 0))
decode, weights = load(f"decode_level_{level}")
sound = np.asarray(decode(weights, np.stack(drawn, 1)))
soundfile.write(wav, sound[0].clip(-1, 1), manifest["sample_rate"])
again = load(f"encode_level_{level}")[0](weights, sound)
print(f"jax {jax.__version__} on {jax.devices()[0].platform}: level {level}, codes of song 0:")
print("drawn", np.stack(drawn, 1)[0, :8], "decoded and encoded again", np.asarray(again)[0, :8])
