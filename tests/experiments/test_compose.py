"""A tree of candidates: begun, continued, cut back, branched, upsampled."""

import numpy as np
import pytest

from experiments import compose
from jukejax import locks
from jukejax.evaluation.pages import sample_page
from jukejax.sampling.sample_dir import read_job

BEGIN = "--artist ella --genre jazz --seconds 0.02 --total-seconds 1 --candidates 2"
DRAWN = ["--temperature", "3", "3", "3", "--hop-fraction", "0.5", "0.5", "0.5"]


def codes(song, node, level=2):
    with np.load(song / f"node_{node}" / f"level_{level}" / "codes.npz") as data:
        return data["codes"].astype(int)


@pytest.fixture(scope="module")
def song(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    song = folder / "song"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_page, "write_page", lambda out: out)
        begin = ["--song", str(song), "--model", str(model), *BEGIN.split(), *DRAWN]
        compose.main(["begin", *begin])
        extend = ["extend", "--song", str(song), "--seconds", "0.01", "--candidates", "2"]
        compose.main([*extend, "--node", "1", "--item", "1"])
        compose.main([*extend, "--node", "2", "--item", "0", "--at", "0.024", "--seed", "3"])
        compose.main(["begin", *begin])  # there already
        upsample = ["upsample", "--song", str(song), "--node", "3", "--item", "1"]
        compose.main([*upsample, "--parallel-segments", "2"])
        yield song


def test_a_node_goes_on_from_the_chosen_candidate(song):
    first, second, third = (codes(song, node) for node in (1, 2, 3))
    assert (first.shape, second.shape) == ((2, 10), (2, 15))
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(second[:, :10], first[[1, 1]])
    assert (second[0] != second[1]).any()
    assert third.shape == (2, 17)  # cut back to 12 codes, and 5 more
    np.testing.assert_array_equal(third[:, :12], second[[0, 0], :12])
    assert (third[:, 12:15] != second[:, 12:15]).any()


def test_any_node_is_upsampled(song):
    np.testing.assert_array_equal(codes(song, 4), codes(song, 3)[1:])
    assert codes(song, 4, 1).shape == (1, 34) and codes(song, 4, 0).shape == (1, 68)
    assert read_job(song / "node_4" / "job.json")[1].parallel_segments == 2


def test_the_tree_says_where_each_comes_from(song, capsys):
    compose.main(["tree", "--song", str(song)])
    assert capsys.readouterr().out.splitlines() == [
        "node 1: 2 candidates, 0.02 s, seed 0",
        "  node 2: 2 candidates, 0.03 s, continues item 1 from 0.02 s, seed 0",
        "    node 3: 2 candidates, 0.034 s, continues item 0 from 0.024 s, seed 3",
        "      node 4: 1 candidate, 0.034 s, upsamples item 1 from 0 s, seed 0",
    ]


def test_what_is_not_there_is_refused(song, capsys):
    extend = ["extend", "--song", str(song), "--node"]
    for options, message in (
        ([*extend, "9"], "has no node 9; it has 1, 2, 3, 4"),
        ([*extend, "1", "--item", "2"], "has no item 2"),
        ([*extend, "1", "--at", "0.5"], "at is 0.5"),
    ):
        with pytest.raises(SystemExit, match=message):
            compose.main(options)
    assert not (song / "node_5").exists()
    for action in (["tree"], ["extend", "--node", "1"]):
        with pytest.raises(SystemExit, match="nothing holds no nodes; `jukejax compose begin`"):
            compose.main([*action, "--song", str(song / "nothing")])


def test_two_at_once_are_refused(song):
    with locks.writing(song), pytest.raises(SystemExit, match="song is being written by process"):
        compose.main(["extend", "--song", str(song), "--node", "1", "--item", "1"])
    again = ["extend", "--song", str(song), "--node", "1", "--item", "1", "--seconds", "0.01"]
    with locks.writing(song / "node_2"), pytest.raises(SystemExit, match="node_2 is being written"):
        compose.main([*again, "--candidates", "2"])
