"""Sound chunk by chunk: the whole's, bit for bit on this device, in memory for one chunk."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
import soundfile

from jukejax.config import VQVAEConfig
from jukejax.model_dir import LoadedVQVAE
from jukejax.models import vqvae
from jukejax.models.bottleneck import Codebook
from jukejax.sampling import sound
from jukejax.sampling.job import Item, Job
from jukejax.sampling.sample_dir import SampleDir

CONFIG = VQVAEConfig(
    sample_rate=8000, downs=(3,), multipliers=(1,), width=8, depth=2, emb_width=8, codes=16
)
HOP = 8


def model():
    params = vqvae.init_params(CONFIG, jax.random.key(0))
    rng = np.random.default_rng(0)
    shapes = ((16, 8), (16, 8), (16,))
    books = (Codebook(*(rng.normal(size=shape).astype(np.float32) for shape in shapes)),)
    return LoadedVQVAE(CONFIG, params, books, 0, "")


def write(folder, seconds):
    """Grows the sounds of two songs as codes come; returns the codes."""
    total = seconds * CONFIG.sample_rate // HOP
    codes = np.random.default_rng(1).integers(0, 16, (2, total), np.int32)
    job = Job(items=(Item(), Item()), seconds=seconds)
    sample = SampleDir(folder, job, CONFIG.sample_rate, [{"level": 0}])
    n_samples = total * HOP - 3  # cut inside the last code
    sounds = sound.GrowingSounds(sound.decoder(model(), 0), sample, 0, codes, n_samples)
    for done in range(0, total, 3001):
        sounds.grow(done)
    sounds.grow(total)
    return codes


def test_sound_that_grew_is_the_sound_decoded_at_once(tmp_path):
    codes = write(tmp_path, 30)
    one = model()
    assert len(sound.decoder(one, 0).pieces(codes.shape[1])) > 5
    whole = jax.jit(vqvae.decode, static_argnums=(0, 4))(CONFIG, one.params, one.books, codes, 0)
    whole = np.clip(np.asarray(whole)[..., 0], -1, 1)[:, :-3]
    for item in (0, 1):
        found, rate = soundfile.read(tmp_path / "level_0" / f"item_{item}.wav", dtype="int16")
        soundfile.write(tmp_path / "whole.wav", whole[item], rate)
        expected, _ = soundfile.read(tmp_path / "whole.wav", dtype="int16")
        assert len(np.unique(found)) > 1000
        np.testing.assert_array_equal(found, expected)


PROGRAM = """
import json, sys
from pathlib import Path
import test_sound_memory

codes = test_sound_memory.write(Path(sys.argv[1]), int(sys.argv[2]))
status = Path("/proc/self/status").read_text()  # getrusage would count the parent's peak too
peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
print(json.dumps({"peak": peak, "codes": codes.nbytes, "sound": 4 * codes.size * 8}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_song(tmp_path):
    """40 minutes take what 20 seconds do, and the codes; their sound would take 146 MiB a layer."""
    folder = os.path.dirname(__file__)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    environment["PYTHONPATH"] = os.pathsep.join([folder, os.getcwd()])

    def measured(seconds):
        line = [sys.executable, "-c", textwrap.dedent(PROGRAM), tmp_path / f"{seconds}", seconds]
        done = subprocess.run(list(map(str, line)), env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    short, long = measured(20), measured(2400)
    print(f"peak of 20 s: {short}, of 2400 s: {long}")
    assert long["sound"] > 140 * 2**20
    assert long["peak"] - short["peak"] < 3 * long["codes"] + 16 * 2**20 < long["sound"]
