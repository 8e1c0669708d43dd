"""Noise in what a prior reads in training: stretches from elsewhere in the window."""

import numpy as np
import pytest
import tiny_codes
from batches import code_batches

from data_pipeline.code_loader import noisy
from jukejax.config import ConfigError, PriorConfig, PriorExperiment

PRIOR = PriorConfig(codes=16, n_ctx=64, width=8, depth=1, blocks=4)


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    return tiny_codes.write(tmp_path_factory.mktemp("songs"), [{}, {}, {"split": "test"}])


def batches(codes, noise, split="train", **place):
    return code_batches(
        codes, PRIOR, None, batch_size=16, seed=3, split=split, context_noise=noise, **place
    )


def test_the_codes_to_predict_stay_and_those_read_follow_from_the_step(codes):
    plain, noise = batches(codes, 0.0), batches(codes, 0.4)
    first, second = next(noise), next(noise)
    for batch in first, second:
        expected = next(plain)
        assert "context" not in expected
        np.testing.assert_array_equal(batch["codes"], expected["codes"])
        assert batch["context"].shape == batch["codes"].shape
    again = next(batches(codes, 0.4, start_step=1))
    np.testing.assert_array_equal(again["context"], second["context"])
    changed = first["context"] != first["codes"]
    assert changed.any() and not changed.all(1).any()
    assert len({row.tobytes() for row in changed}) > 8  # examples differ
    assert "context" not in next(batches(codes, 0.4, split="test"))


def test_stretches_of_whole_encoder_outputs_are_moved_and_their_share_is_that_asked_for():
    groups, n, share = 4, 256, 0.25
    rng = np.random.default_rng(0)
    codes = np.arange(400 * n * groups, dtype=np.int32).reshape(400, -1)  # no code twice
    read = noisy(codes, rng.random((400, 3), np.float32), share, groups).reshape(400, n, groups)
    own = codes.reshape(400, n, groups)
    moved = read[..., 0] != own[..., 0]
    assert (read - read[..., :1] == np.arange(groups)).all()  # outputs stay whole and in phase
    assert (read >= own[:, :1, :1]).all() and (read <= own[:, -1:, -1:]).all()  # of the same window
    # stretches overlap: of Poisson(u 2 n share / 8) stretches of 8, 1 - exp(-2 share u) is covered
    covered = 1 - (1 - np.exp(-2 * share)) / (2 * share)
    assert moved.mean() == pytest.approx(covered, abs=0.02)
    assert moved.mean(1).std() > 0.08  # windows with little noise and with much
    inside = moved[:, 1:] & moved[:, :-1]
    along = np.diff(read[..., 0], axis=1) == groups
    assert (along & inside).sum() > 0.8 * inside.sum()  # in order within a stretch
    np.testing.assert_array_equal(
        noisy(codes[:2], np.zeros((2, 3), np.float32), 0.0, groups), codes[:2]
    )


def test_shares_beyond_a_half_are_refused():
    with pytest.raises(ConfigError, match=r"context_noise is 0\.6; give a share from 0 to 0\.5"):
        PriorExperiment(context_noise=0.6)
