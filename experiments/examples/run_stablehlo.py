"""Draws codes, decodes them to sound and encodes a sound, with JAX alone; jukejax is not needed.

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

SONGS, TEMPERATURE = 2, 0.98
folder, wav = Path(sys.argv[1]), sys.argv[2]
manifest = json.loads((folder / "manifest.json").read_text())
artefacts, rate = manifest["artefacts"], manifest["sample_rate"]
level, prior = max(manifest["priors"].items())  # the highest
count = min(int(sys.argv[3]), prior["codes_in_window"])


def load(name, **options):
    data = bytearray((folder / artefacts[name]["file"]).read_bytes())
    return jax.jit(jax.export.deserialize(data).call, **options)


weights = jax.device_put(load_file(folder / artefacts[prior["start"]]["weights"]))
batch = {
    name: np.zeros([SONGS if n == "b" else n for n in x["shape"]], x["dtype"])
    for name, x in artefacts[prior["start"]]["arguments"]["batch"].items()
}
if "artist" in batch:  # artist and genre 0 are "unknown"; a song of three minutes
    batch["genres"][:, 1:], batch["total_length"][:] = -1, 180 * rate
step, random = load(prior["step"], donate_argnums=2), np.random.default_rng(0)
kept, caches, token = load(prior["start"])(weights, batch, 0)
codes = np.zeros((SONGS, count), np.int32)
for position in range(count):
    token = np.asarray(token)  # always of one kind, or JAX would compile the step twice
    logits, caches = step(weights, kept, caches, token, position)
    noisy = np.asarray(logits) / TEMPERATURE + random.gumbel(size=logits.shape)
    token = noisy.argmax(-1).astype(np.int32)
    codes[:, position] = np.maximum(token - prior["first_code"], 0)

weights = jax.device_put(load_file(folder / artefacts[f"decode_level_{level}"]["weights"]))
sound = np.asarray(load(f"decode_level_{level}")(weights, codes))
soundfile.write(wav, sound[0].clip(-1, 1), rate)
heard, _ = soundfile.read(wav, dtype="float32")
again = load(f"encode_level_{level}")(weights, heard[None])
print(f"jax {jax.__version__} on {jax.devices()[0].platform}, {len(artefacts)} artefacts")
print(f"drawn at level {level}: {codes[0, :8]} ..., {len(np.unique(codes[0]))} different codes")
print(f"{wav}: {len(heard) / rate:.2f} s, RMS {np.sqrt((heard**2).mean()):.4f}")
print(f"encoded again: {np.asarray(again)[0, :8]} ..., shape {again.shape}")
