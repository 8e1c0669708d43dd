"""Parts of the sampling command: jobs from options, labels of windows, sounds."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import oracle
import pytest
import tiny_model

from experiments import sample
from jukejax import codec, presets
from jukejax.config import (
    ConfigError,
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    UpperConfig,
    VQVAEConfig,
)
from jukejax.errors import CheckpointError, DataError
from jukejax.model_dir import (
    LoadedModel,
    LoadedVQVAE,
    ModelDir,
    read_model_dir,
    write_model_dir,
)
from jukejax.models import vqvae
from jukejax.models.bottleneck import Codebook
from jukejax.sampling import conditions, sound
from jukejax.sampling import resolve as setup
from jukejax.sampling.conditions import job_conditions
from jukejax.sampling.job import Item, Job, Options, options_from
from jukejax.sampling.request import make_request, request_again
from jukejax.sampling.sample_dir import SampleDir
from jukejax.text import lyrics as text
from jukejax.text.labels import Vocabulary, labels_digest

soundfile = pytest.importorskip("soundfile")

VOCABULARY = Vocabulary.build(["Ella Fitzgerald", "Elvis Presley"], ["Jazz", "Pop Rock", "Soul"])
WORDS = "We all live in a yellow submarine"
JOB = Job(
    model="/models/tiny",
    items=(Item("ella fitzgerald", ("soul", "jazz"), WORDS), Item("unknown", (), "")),
    seconds=6.0,
    seed=3,
)


# --- jobs from options ----------------------------------------------------------------------------


MODEL = LoadedModel(
    ModelDir(Path("/models/tiny"), Path(), {}, {}),
    LoadedVQVAE(tiny_model.VQVAE, None, (), 0, ""),
    None,
)


def test_a_request_takes_every_option():
    drawn = {
        "seconds": 3.0, "total_seconds": 9.0, "seed": 7, "temperature": (0.5, 0.6),
        "hop_fraction": (0.25, 1.0), "top_k": (0, 5), "top_p": (0.9, 1.0), "levels": (1,),
        "max_batch": 4, "weights": "int8", "parallel_segments": 2, "guidance": 1.5,
    }  # fmt: skip
    labels = {"artist": "A", "genre": ("g", "h"), "year": 1959, "tags": ("t",)}
    # see test_sampling.py and test_render.py
    others = {"continue_from", "at", "upsample", "span", "item", "render"}
    names = {field.name for field in dataclasses.fields(Options)}
    assert {*drawn, *labels, "count"} == names - others
    request = make_request(MODEL, Options(**drawn, **labels, count=2), "la la\n")
    song = Item("A", ("g", "h"), "la la\n", year=1959, tags=("t",))
    assert request.job == Job(model="/models/tiny", items=(song,) * 2, **drawn)


def test_single_values_stand_for_tuples():
    values = {"genre": "jazz", "temperature": 0.9, "top_k": 5, "levels": 2, "upsample": "a"}
    assert options_from(3, values) == Options(
        genre=("jazz",), temperature=(0.9,) * 3, top_k=(5,) * 3, levels=(2,), upsample=Path("a")
    )
    with pytest.raises(ConfigError, match=r"temprature is not an option.*did you mean temperature"):
        options_from(3, {"temprature": 1.0})


def test_the_command_ends_with_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: Give --model MODEL_DIR, or --job"):
        sample.main(["--out", str(tmp_path)])


def test_a_request_is_read_from_the_job_of_a_sample_directory(tmp_path):
    job = dataclasses.replace(JOB, weights="int8")
    SampleDir(tmp_path, job, 1000, [])
    assert request_again(MODEL, tmp_path / "job.json").job == job


def test_a_job_with_a_wrong_field_names_its_file(tmp_path):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"request": {"secs": 3}}))
    with pytest.raises(ConfigError, match=r"job\.json has no field 'secs'"):
        request_again(MODEL, file)


@pytest.mark.parametrize("field", ["temperature", "hop_fraction"])
def test_every_level_needs_a_temperature_and_a_hop_fraction(field):
    job = dataclasses.replace(JOB, **{field: (0.5, 0.5)})
    with pytest.raises(ConfigError, match=f"{field} has 2 values, but the model has 3 levels"):
        setup.check_levels(job, 3)
    setup.check_levels(JOB, 3)


def test_names_of_levels():
    assert [setup.level_name(i, 3) for i in range(3)] == ["bottom", "middle", "top"]
    assert [setup.level_name(i, 2) for i in range(2)] == ["bottom", "top"]


# --- labels of windows ----------------------------------------------------------------------------

PRIOR = PriorConfig(
    n_ctx=16, blocks=4, width=8, heads=1, depth=4, attn_order=6, hop=100, sample_rate=1000, codes=5,
    labels=LabelsConfig(artists=3, genres=4, max_genres=3, max_seconds=60.0),
    lyrics=LyricsConfig(tokens=10, width=8, depth=1, heads=1, blocks=2),
)  # fmt: skip


def test_conditions_gives_the_labels_of_a_window():
    batch = job_conditions(PRIOR, VOCABULARY, JOB, 6000)(1600)
    assert batch["artist"].tolist() == [1, 0]
    assert batch["genres"].tolist() == [[3, 1, -1], [0, -1, -1]]
    assert batch["offset"].tolist() == [1600, 1600]
    assert batch["total_length"].tolist() == [6000, 6000]
    assert {name: x.dtype for name, x in batch.items()} == dict.fromkeys(batch, np.dtype("int32"))
    # characters around (1600 + 1600 / 2) / 6000 of the 33, ten of them: 8 to 17
    assert text.decode(batch["lyrics"][0]) == WORDS[8:18]
    assert batch["lyrics"][1].tolist() == [0] * 10


def test_conditions_moves_only_offset_and_lyrics_from_window_to_window():
    describe = job_conditions(PRIOR, VOCABULARY, JOB, 6000)
    first, later = describe(0), describe(4400)
    assert text.decode(first["lyrics"][0]) == WORDS[:10]
    assert text.decode(later["lyrics"][0]) == WORDS[-10:]
    changed = {name for name in first if not np.array_equal(first[name], later[name])}
    assert changed == {"offset", "lyrics"}


def test_conditions_takes_the_longer_song_that_a_sample_begins():
    job = dataclasses.replace(JOB, total_seconds=30.0)
    batch = job_conditions(PRIOR, VOCABULARY, job, 6000)(1600)
    assert batch["total_length"].tolist() == [30_000, 30_000]
    assert text.decode(batch["lyrics"][0]) == WORDS[:10]  # 2400 / 30000 of the words
    # rounding up to whole codes makes a sample longer than the song asked for
    job = dataclasses.replace(JOB, total_seconds=6.0)
    assert job_conditions(PRIOR, VOCABULARY, job, 6100)(0)["total_length"].tolist() == [6100, 6100]


def test_windows_of_a_part_of_a_song_are_placed_in_the_song():
    """A sample that begins at 3 s: its window at 1.6 s is the song's at 4.6 s."""
    whole = job_conditions(PRIOR, VOCABULARY, dataclasses.replace(JOB, seconds=9.0), 9000)(4600)
    job = dataclasses.replace(JOB, begin_seconds=3.0)
    part = job_conditions(PRIOR, VOCABULARY, job, 6000)
    assert part(1600)["offset"].tolist() == [4600, 4600]
    for name, array in part(1600).items():
        np.testing.assert_array_equal(array, whole[name])
    first = part.first_token(1600)  # what alignment takes for the window's beginning
    assert text.decode(part(1600)["lyrics"][0]) == WORDS[first : first + 10]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (19.0, r"is 19 s long.*spans 20 to 40 s: .* a length of 20 s\. .*--total-seconds"),
        (20.0, ""),
        (40.0, ""),
        (41.0, r"is 41 s long.* a length of 40 s, and at later positions"),
    ],
)
def test_a_length_outside_the_timing_bins_is_said(seconds, words, capsys):
    labels = dataclasses.replace(PRIOR.labels, min_seconds=20.0, max_seconds=40.0)
    config = dataclasses.replace(PRIOR, labels=labels)
    job = dataclasses.replace(JOB, total_seconds=seconds)
    job_conditions(config, VOCABULARY, job, 6000)
    printed = capsys.readouterr().out
    assert bool(printed) == bool(words) and re.search(words, printed)
    below = dataclasses.replace(config, level=1, upper=UpperConfig())  # has no timing
    job_conditions(below, VOCABULARY, job, 6000)
    assert not capsys.readouterr().out


def test_positions_that_32_bits_cannot_count_are_refused():
    """At 48 kHz the longest song of a job is too long."""
    config = dataclasses.replace(PRIOR, sample_rate=48_000)
    job = dataclasses.replace(JOB, total_seconds=47_000.0)
    with pytest.raises(ConfigError, match=r"2,256,000,000 samples at 48000 Hz; .* than 44739 seco"):
        job_conditions(config, VOCABULARY, job, 6000)


def test_a_prior_without_conditions_has_none():
    config = dataclasses.replace(PRIOR, labels=None, lyrics=None, attn_order=2)
    assert job_conditions(config, VOCABULARY, JOB, 6000)(1600) == {}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Item("ela fitzgerald"), r"artist 'ela fitzgerald'.*nearest are 'ella fitzgerald'"),
        (Item("unknown", ("pop rok",)), r"genre 'pop rok'.*nearest are 'pop rock'"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(item, message):
    job = dataclasses.replace(JOB, items=(*JOB.items, item))
    with pytest.raises(DataError, match=message):
        job_conditions(PRIOR, VOCABULARY, job, 6000)


def test_levels_below_take_names_they_do_not_know_as_unknown(capsys):
    upper = UpperConfig(width=4, depth=1)
    config = dataclasses.replace(PRIOR, level=1, upper=upper, lyrics=None, attn_order=2)
    item = Item("Elvis Presley", ("pop rock", "polka", "jazz", "soul"))
    job = dataclasses.replace(JOB, items=(item, JOB.items[0]))
    batch = job_conditions(config, VOCABULARY, job, 6000)(0)
    assert batch["artist"].tolist() == [2, 1]
    assert batch["genres"].tolist() == [[2, 0, 1], [3, 1, -1]]
    assert capsys.readouterr().out.count("level 1 takes unknown labels as 'unknown'") == 1
    with pytest.raises(DataError, match=r"'polka'"):
        job_conditions(PRIOR, VOCABULARY, job, 6000)


def test_too_many_genres_are_an_error():
    job = dataclasses.replace(JOB, items=(Item("unknown", ("jazz", "soul", "jazz", "pop rock")),))
    with pytest.raises(DataError, match=r"4 genres.*at most 3"):
        job_conditions(PRIOR, VOCABULARY, job, 6000)


def test_lyric_windows_are_cut_in_the_precision_of_the_published_sampling():
    """A recorded case in which float32 starts at 95,153 and float64 one character later."""
    config = presets.get("prior_5b_lyrics").model
    vocabulary = Vocabulary.placeholder(2, 2)
    words = ("0123456789" * 10_008)[:100_078]
    job = dataclasses.replace(JOB, items=(Item("unknown", (), words),))
    batch = job_conditions(config, vocabulary, job, 23_814_007)(22_178_949)
    assert text.decode(batch["lyrics"][0]).startswith("345")


# --- label names by level -------------------------------------------------------------------------


def test_labels_are_one_file_or_one_a_level(tmp_path):
    priors = {2: tmp_path / "top", 0: tmp_path / "bottom"}
    write_model_dir(tmp_path / "a", tmp_path / "vqvae", priors, tmp_path / "labels.json")
    one = read_model_dir(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "model.json").read_text())["labels"] == "../labels.json"
    assert one.labels(2) == one.labels(0) == tmp_path / "a" / ".." / "labels.json"
    files = {2: tmp_path / "v3.json", 0: tmp_path / "b" / "v2.json"}
    write_model_dir(tmp_path / "b", tmp_path / "vqvae", priors, files)
    two = read_model_dir(tmp_path / "b")
    assert {level: two.labels(level).resolve() for level in (2, 0)} == files
    with pytest.raises(CheckpointError, match="no labels for level 1"):
        two.labels(1)


def test_labels_must_fit_the_prior(tmp_path):
    write_model_dir(tmp_path, tmp_path / "vqvae", {2: tmp_path / "top"}, tmp_path / "labels.json")
    folder = read_model_dir(tmp_path)
    conditions.check_labels(PRIOR, {}, VOCABULARY, folder)
    conditions.check_labels(PRIOR, {"labels": labels_digest(VOCABULARY)}, VOCABULARY, folder)
    with pytest.raises(ConfigError, match=r"labels\.json does not hold the label names"):
        conditions.check_labels(PRIOR, {"labels": "0" * 16}, VOCABULARY, folder)
    with pytest.raises(ConfigError, match=r"labels\.json names 9 genres.*level 2 has 4"):
        conditions.check_labels(PRIOR, {}, Vocabulary.placeholder(3, 9), folder)


# --- sounds ---------------------------------------------------------------------------------------


def test_sound_in_pieces_equals_the_whole_but_for_clipping():
    config = VQVAEConfig(
        sample_rate=8, downs=(1, 1), multipliers=(1, 1), width=4, depth=1, emb_width=4, codes=6
    )
    params = oracle.random_params(lambda key: vqvae.init_params(config, key), scale=0.35)
    rng = np.random.default_rng(0)
    books = tuple(
        Codebook(*(rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (6, 4), (6,))))
        for _ in range(2)
    )
    model = LoadedVQVAE(config, params, books, 0, "")
    codes = rng.integers(0, 6, (2, 60)).astype(np.int32)
    # pieces of 8 codes: 4 seconds of 8 samples, 4 samples a code
    assert 8 + 2 * codec.decoder_reach(config, 1) < 30
    whole = jax.jit(lambda p, b, z: vqvae.decode(config, p, b, z, 1))(params, books, codes)
    whole = np.asarray(whole)[..., 0]
    assert 0.1 < np.mean(np.abs(whole) > 1) < 0.9  # both kinds of sample are there
    assert len(sound.decoder(model, 1).pieces(60)) > 3
    audio = np.stack([sound.decode(model, z, 1) for z in codes])
    assert audio.shape == (2, 240) and audio.dtype == np.float32
    np.testing.assert_allclose(audio, np.clip(whole, -1, 1), atol=1e-5)
