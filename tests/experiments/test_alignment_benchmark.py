"""The arithmetic of the alignment benchmark."""

import numpy as np
import pytest

from experiments.benchmark import alignment


def test_level_is_the_si_sdr_of_the_mix():
    rng = np.random.default_rng(0)
    voice, band = rng.standard_normal((2, 200_000))
    mix = voice + 3.0 * band * alignment.music_gain(voice, 3.0 * band, 8.0)
    along = voice * (mix @ voice) / (voice @ voice)
    assert 10 * np.log10(np.sum(along**2) / np.sum((mix - along) ** 2)) == pytest.approx(8, abs=0.1)


def test_linear_onsets_share_the_song_by_letters():
    song = {"lyrics": "Oh, my\nBonnie ly", "seconds": 32.0}
    np.testing.assert_allclose(alignment.linear_onsets(song), [0.0, 8.0, 14.0, 28.0])
