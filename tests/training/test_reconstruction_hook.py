"""Sounds of held-out chunks and their reconstructions, while a VQ-VAE trains."""

from dataclasses import replace

import jax
import numpy as np

from jukejax import presets
from jukejax.config import MeshConfig, TrainConfig, VQVAEConfig, VQVAEExperiment
from jukejax.models import vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.training.loop import Run
from jukejax.training.reconstruction import reconstruction_hook, shown_chunks
from jukejax.training.step import create_state
from jukejax.training.tasks import make_task

EXPERIMENT = VQVAEExperiment(
    model=VQVAEConfig(
        sample_rate=8000, downs=(1, 1), multipliers=(1, 1), width=4, depth=1, emb_width=4, codes=8
    ),
    samples=2560, train=TrainConfig(batch=2, evaluate_every=7),
)  # fmt: skip


class Recorder:
    """A MetricsWriter that keeps what it is given."""

    def __init__(self):
        self.sounds, self.pictures = {}, {}

    def audio(self, step, name, samples, sample_rate):
        assert sample_rate == 8000
        self.sounds[step, name] = samples

    def image(self, step, name, pixels):
        self.pictures[step, name] = pixels


def test_original_once_and_every_levels_reconstruction():
    mesh = make_mesh(MeshConfig(data=2), jax.devices()[:2])
    audio = np.random.default_rng(0).normal(size=(2, 2560, 1)).astype(np.float32)
    state = create_state(make_task(EXPERIMENT), EXPERIMENT, mesh, {"audio": audio})
    # the averaged parameters are shown, not the parameters
    state = state._replace(params=jax.tree.map(np.zeros_like, state.params))
    run = Run(EXPERIMENT, mesh, "nowhere", iter)
    hook = reconstruction_hook(run, audio, lambda sound, rate: (len(sound), rate))
    assert hook.every == 7
    recorder = Recorder()
    for step in (7, 14):
        hook.run(step, state, recorder)
    names = ["held_out/original", "held_out/level_0", "held_out/level_1"]
    assert list(recorder.sounds) == [(7, name) for name in names] + [(14, n) for n in names[1:]]
    assert recorder.pictures == dict.fromkeys(recorder.sounds, (2 * 2560, 8000))
    np.testing.assert_array_equal(recorder.sounds[7, names[0]], audio.reshape(-1))
    model = EXPERIMENT.model, *(state.ema, state.extra.books)
    rebuild = jax.jit(lambda x: vqvae.decode(*model, vqvae.encode(*model, x, 1), 1))
    expected = np.concatenate([rebuild(chunk[None])[0, :, 0] for chunk in audio])  # each alone
    np.testing.assert_allclose(recorder.sounds[14, names[2]], expected, atol=1e-5)


def test_at_most_a_minute_is_shown_and_at_least_a_chunk():
    shown = {name: shown_chunks(presets.get(name)) for name in ("vqvae", "demo_vqvae")}
    assert shown == {"vqvae": 6, "demo_vqvae": 12}  # of 256 and 12
    assert shown_chunks(replace(EXPERIMENT, samples=8000 * 61)) == 1
