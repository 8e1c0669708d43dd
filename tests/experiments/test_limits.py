"""Bounds of sampling against arithmetic done by hand."""

import pytest

from experiments.benchmark import limits
from jukejax import costs, presets


@pytest.mark.parametrize("name", limits.LEVELS)
def test_a_token_costs_its_share_of_a_forward_pass(name):
    experiment = presets.get(name)
    forward = costs.forward_flops(experiment)
    share = (forward["stack"] + forward["output"]) / experiment.model.seq_len
    assert costs.decode_flops(experiment.model) == pytest.approx(share, rel=0.001)


def test_one_stream_is_bound_by_reading_the_weights():
    chip = costs.GPUS["H100"]
    bound = limits.song_bound(chip, 1, 2, 60.0, 1)
    width, narrow, depth = 1920, 480, 72
    layer = width * 3 * narrow + narrow * width + 2 * width * width
    read = 2 * (depth * layer + 2048 * width)  # bytes of bfloat16
    tokens = 60 * 44_100 / 8
    assert bound["levels"][0] == pytest.approx(tokens * read / 3352e9, rel=0.02)
    assert bound["one_after_another"] == pytest.approx(sum(bound["levels"]))
    assert bound["pipelined"] == max(bound["levels"]) == bound["levels"][0]


def test_chains_share_the_reading_of_weights_and_the_top_level_keeps_its_chain():
    chip = costs.GPUS["H100"]
    chain, cut = (limits.song_bound(chip, 1, 2, 60.0, n) for n in (1, 41))
    assert cut["levels"][2] == chain["levels"][2]
    assert 25 < chain["levels"][0] / cut["levels"][0] < 41  # caches are read for each


def test_what_does_not_fit_one_chip_is_marked():
    fits = limits.song_bound(costs.CHIPS["v5e"], 16, 2, 60.0, 1)["fits"]
    assert fits == [True, True, False]  # 5B in bfloat16: 10 GB, and 16 caches of 1 GB
