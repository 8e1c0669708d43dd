"""Songs whose upsampling is cut into chains: the job, kills, batches, prompts, plans, sounds."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import soundfile
import tiny_model
from tiny_model import HOPS, N_CTX, RATE, assert_same, codes, sample

from experiments import sample as command
from jukejax.config import ConfigError
from jukejax.sampling import making
from jukejax.sampling.run import sample_into
from jukejax.sampling.sample_dir import SampleDir

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.slow]
SECONDS, CHAINS = 0.0751, 3  # 38, 76 and 152 codes, top first; windows of 16
TOTALS = {2: 38, 1: 76, 0: 152}
SEAMS = {1: [24, 50], 0: [50, 100]}  # whole codes of the level above; worked out by hand
OPTIONS = {
    "artist": "ella", "genre": ("jazz",), "hop_fraction": (0.5, 0.5, 0.5),
    "temperature": (3.0, 3.0, 3.0), "seconds": SECONDS, "count": 2, "seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """Two songs in one chain each."""
    return sample(tmp_path_factory.mktemp("whole"), model=model, **OPTIONS)


@pytest.fixture(scope="module")
def cut(model, tmp_path_factory):
    """The same songs in three chains each."""
    folder = tmp_path_factory.mktemp("cut")
    return sample(folder, model=model, parallel_segments=CHAINS, **OPTIONS)


def test_only_upsamplers_are_cut_and_a_chain_goes_on_as_the_song_at_once_begins(whole, cut):
    np.testing.assert_array_equal(codes(whole, 2), codes(cut, 2))
    a, b = codes(whole, 1), codes(cut, 1)
    np.testing.assert_array_equal(a[:, :N_CTX], b[:, :N_CTX])  # the first window of the first chain
    assert (a[:, 24:] != b[:, 24:]).any()
    for level, total in TOTALS.items():
        assert codes(cut, level).shape == (2, total)
        sound, rate = soundfile.read(cut / f"level_{level}" / "item_1.wav")
        assert (len(sound), rate) == (601, RATE)


def test_the_job_makes_the_song_again_and_no_other_is_made_in_its_place(model, cut, tmp_path):
    record = json.loads((cut / "job.json").read_text())
    assert record["request"]["parallel_segments"] == CHAINS
    assert_same(cut, sample(tmp_path / "again", job=cut / "job.json"))
    with pytest.raises(ConfigError, match="samples of another job"):
        sample(cut, model=model, **OPTIONS)


@pytest.mark.parametrize("stream", [False, True])
def test_killed_after_every_chunk_it_makes_the_same_songs(model, cut, tmp_path, stream):
    """Each run samples 7 tokens of every chain of one level; the next continues from disk."""
    loaded, request = tiny_model.request(model, parallel_segments=CHAINS, **OPTIONS)
    begun = []
    while True:
        steps = sample_into(tmp_path, loaded.loaded, request, stream, chunk=7)
        step = next((step for step in steps if not step.finished), None)
        steps.close()
        if step is None:
            break
        kept = SampleDir.open(tmp_path)
        found, done = kept.load(step.level, (2, TOTALS[step.level]))
        expected = codes(cut, step.level)
        for item in (0, 1):  # what is counted as finished is finished
            assert (found[item, : done[item]] == expected[item, : done[item]]).all()
        begun.append((step.level, int(kept.made(step.level, 2)[0]), int(done[0])))
    assert len([level for level, *_ in begun if level == 0]) > 52 / 8 - 1  # the longest chain
    assert any(0 < done < made < TOTALS[level] for level, made, done in begun)
    assert_same(cut, tmp_path)


def test_max_batch_counts_songs_times_chains(model, cut, tmp_path, monkeypatch):
    """Rounding could turn a token at an edge of the distribution; with these numbers none is."""
    rows = []

    def make_loop(config, mesh, params, windows, *rest, was=making.make_loop):
        rows.append((config.level, windows))
        return was(config, mesh, params, windows, *rest)

    monkeypatch.setattr(making, "make_loop", make_loop)
    options = {"parallel_segments": CHAINS, "max_batch": 5, **OPTIONS}
    assert_same(cut, sample(tmp_path, model=model, **options))
    assert set(rows) == {(2, 2), (1, 3), (0, 3)}  # both songs, then one song's chains at a time


def test_a_prompt_is_gone_on_from_and_only_the_rest_is_cut(model, whole, tmp_path):
    """The first chain hears what is given; with the same numbers it is the song at once."""
    options = {"hop_fraction": (0.5,) * 3, "temperature": (3.0,) * 3, "seed": 5}
    keep = 20 * HOPS[-1] / RATE  # 20, 40 and 80 codes
    redrawn = sample(tmp_path / "a", continue_from=whole, at=keep, seconds=SECONDS,
                     parallel_segments=2, **options)  # fmt: skip
    record = json.loads((redrawn / "job.json").read_text())
    record["request"]["redraws"] = 0  # the same numbers
    (redrawn / "job.json").write_text(json.dumps(record))
    out = sample(tmp_path / "c", job=redrawn / "job.json")
    for level, given in {2: 20, 1: 40, 0: 80}.items():
        found = codes(out, level)
        np.testing.assert_array_equal(found[:, :given], codes(whole, level)[:, :given])
        assert found.shape == (2, TOTALS[level])
        # 36 and 72 are left: chains from 40 and 58, from 80 and 116; a window ends at 48 and 88
        if level < 2:
            np.testing.assert_array_equal(
                found[:, : given + 8], codes(whole, level)[:, : given + 8]
            )
            assert (found[:, given + 24 :] != codes(whole, level)[:, given + 24 :]).any()
    assert_same(out, sample(tmp_path / "b", job=out / "job.json"))


def test_a_whole_song_is_upsampled_again_with_or_without_chains(whole, cut, tmp_path):
    """With the same numbers it is the same song, to the end of its last code."""
    options = {"hop_fraction": (0.5,) * 3, "temperature": (3.0,) * 3, "seed": 5, "levels": (1, 0)}
    for name, song, chains in (("one", whole, 1), ("three", cut, CHAINS)):
        out = sample(tmp_path / name, upsample=song, parallel_segments=chains, **options)
        for level in TOTALS:
            np.testing.assert_array_equal(codes(out, level), codes(song, level))


def test_streaming_waits_for_the_codes_above_all_chains(model, cut, tmp_path, monkeypatch):
    order = []

    def step(self, was=making.Batch.step):
        ready = {level: self.board.sampled[level].copy() for level in TOTALS}
        first = not self.progress.rounds and not self.progress.drawn.size
        made = was(self)
        order.append((self.level.level, first, ready))
        return made

    monkeypatch.setattr(making.Batch, "step", step)
    options = {"parallel_segments": CHAINS, **OPTIONS}
    assert_same(cut, sample(tmp_path, model=model, stream=True, **options))
    begun = {level: ready for level, first, ready in order if first}
    assert not begun[2][2].any()
    # the last chain of the middle begins at 50 and reads what is above its window: 25 to 32
    assert begun[1][2][:, 25:33].all()
    # those of the bottom begin at 0, 50 and 100: the first round of the middle's is enough
    for begin in (0, 25, 50):
        assert begun[0][1][:, begin : begin + 8].all()
    assert not begun[0][1].all()


def test_the_sound_of_what_is_sampled_can_be_heard_while_a_level_grows(model, whole, tmp_path):
    loaded, request = tiny_model.request(model, levels=2, **OPTIONS)
    heard, pieces, part = [], [], tmp_path / "level_2" / "item_1.part.wav"
    # pieces of 32 samples, beside the overlap
    for step in sample_into(tmp_path, loaded.loaded, request, chunk=7, piece_seconds=0.004):
        heard.append(soundfile.read(part, dtype="int16")[0] if part.exists() else np.zeros(0))
        pieces.append(step.sound[1])
    final, _ = soundfile.read(tmp_path / "level_2" / "item_1.wav", dtype="int16")
    lengths = [len(x) for x in heard[:-1]]
    assert lengths == sorted(lengths) and len(set(lengths)) > 2 and 0 < lengths[-1] < 601
    for x in heard:
        np.testing.assert_array_equal(x, final[: len(x)])
    assert np.abs(np.concatenate(pieces) * 2**15 - final).max() <= 1
    assert not part.exists()
    whole_sound = soundfile.read(whole / "level_2" / "item_1.wav", dtype="int16")[0]
    assert np.abs(final.astype(int) - whole_sound).max() <= 1  # of other pieces


def test_a_plan_names_chains_and_counts_them_in_memory(model, tmp_path, capsys):
    def plan(**more):
        sample(tmp_path, model=model, plan=True, **OPTIONS, **more)
        return capsys.readouterr().out

    text = plan(parallel_segments=CHAINS)
    bottom = text[text.index("level 0:") :]
    assert "3 chains side by side of 50 to 52 tokens, in 6 rounds of one window each" in bottom
    assert "1 window  given 0 made 16: tokens 0 to 16" in bottom
    assert "1 window  given 0 made 16: tokens 100 to 116" in bottom

    def row(text):
        cells = [line.split() for line in text.splitlines()]
        return next(line for line in cells if line[:2] == ["0", "152"])

    def mebibytes(cells):
        return [float(x) for x, unit in itertools.pairwise(cells) if unit == "MiB"]

    single, chained = row(plan()), row(text)
    assert (single[2], chained[2]) == ("2", "6")  # rows of a batch
    assert (single[3], chained[3]) == ("152", "52")  # steps: those of the longest chain
    weights, caches, *_ = zip(mebibytes(single), mebibytes(chained), strict=True)
    assert weights[0] == weights[1] and caches[1] == pytest.approx(3 * caches[0], rel=0.3)


PUBLISHED = ("vqvae", "upsampler_level_0", "upsampler_level_1", "prior_5b_lyrics")


def test_the_published_models_are_planned_without_weights(tmp_path, capsys):
    line = ["--out", str(tmp_path), "--plan", "--seconds", "60", "--parallel-segments", "41"]
    command.main([*line, "--presets", *PUBLISHED])
    text = capsys.readouterr().out
    # 60 s are 330,750 codes, rounded up to whole codes of the top level: 330,752
    assert "41 chains side by side of 8,064 to 8,068 tokens, in 1 round of one window" in text
    assert "11 chains side by side of 7,516 to 7,520 tokens" in text  # not more than windows
    assert "20,672 tokens a song" in text
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": False}, "nothing can be sampled; give --plan"),
        ({"presets": PUBLISHED[:3]}, "name a VQ-VAE and a prior for each level"),
        ({"presets": ("prior_9b",)}, "prior_9b"),
        ({"model": "x"}, "--model cannot be combined with --presets"),
    ],
)
def test_presets_that_are_no_model_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        sample(**{"out": tmp_path, "plan": True, "presets": PUBLISHED} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parallel_segments": 0}, "parallel_segments is 0"),
        ({"parallel_segments": 4, "max_batch": 3}, "max_batch is 3, but the 4 chains of a song"),
    ],
)
def test_chains_that_cannot_be_are_refused(model, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        tiny_model.request(model, **OPTIONS, **options)


def test_a_job_without_chains_is_what_older_directories_hold(model, whole, tmp_path):
    """Their job.json does not name them, and their codes.npz does not say how many are made."""
    old = tmp_path / "old"
    loaded, request = tiny_model.request(model, **OPTIONS, levels=(2,))
    loaded.make(request, old)
    record = json.loads((old / "job.json").read_text())
    del record["request"]["parallel_segments"]
    (old / "job.json").write_text(json.dumps(record))
    with np.load(old / "level_2" / "codes.npz") as data:
        kept = {"codes": data["codes"], "done": data["done"]}
    np.savez(old / "level_2" / "codes.npz", **kept)
    job = dataclasses.replace(request.job, levels=())
    loaded.make(request._replace(job=job), old)
    for level in TOTALS:
        with np.load(old / f"level_{level}" / "codes.npz") as data:
            np.testing.assert_array_equal(data["codes"], codes(whole, level))
