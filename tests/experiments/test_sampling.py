"""The sampling command with a tiny model of three levels: modes, plans, levels, batches."""

import dataclasses
import gc
import json
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import tiny_model
from tiny_model import HOPS, RATE, assert_same, codes, sample
from tqdm import tqdm

import jukejax
from jukejax.config import ConfigError, MeshConfig
from jukejax.errors import DataError
from jukejax.model_dir import ModelDir, load_vqvae
from jukejax.parallel.mesh import local_bytes, make_mesh
from jukejax.sampling import making
from jukejax.sampling.resolve import resolve
from jukejax.sampling.run import sample_into
from jukejax.sampling.sample_dir import read_job

pytestmark = pytest.mark.usefixtures("quick")
DRAWN = {"hop_fraction": (0.5, 0.5, 0.5), "temperature": (3.0, 3.0, 3.0)}
BATCH = {"artist": "ella", "genre": ("jazz",), **DRAWN}
SECONDS = 0.0751  # 600.8 samples: 38 codes of the top level, cut to 601 samples


def sound(folder, level, item):
    audio, rate = soundfile.read(folder / f"level_{level}" / f"item_{item}.wav")
    assert rate == RATE
    return audio


@pytest.fixture(scope="module")
def song(model, tmp_path_factory):
    """Two songs at all levels, from nothing."""
    out = tmp_path_factory.mktemp("songs") / "song"
    return sample(out, model=model, seconds=SECONDS, count=2, seed=5, **BATCH)


# --- from nothing ---------------------------------------------------------------------------------


def test_codes_and_sounds_have_the_length_that_was_asked_for(song):
    """No multiple of anything: whole codes of the top level inside, cut to the sample outside."""
    for level, count in {2: 38, 1: 76, 0: 152}.items():
        assert codes(song, level).shape == (2, count)
        assert [len(sound(song, level, i)) for i in (0, 1)] == [601, 601]
        assert len(np.unique(codes(song, level))) > 4
    assert (codes(song, 0)[0] != codes(song, 0)[1]).any()
    assert not list(song.glob("level_*/window_*.npz"))


def test_the_job_makes_the_song_again(song, tmp_path):
    assert_same(song, sample(tmp_path / "again", job=song / "job.json"))


def test_bars_begin_after_the_chunk_that_compiles(model, tmp_path, monkeypatch, capsys):
    bars = []

    def bar(*, initial, total, desc, **options):
        assert f"{desc}: compiling ..." in capsys.readouterr().out
        bars.append((desc, initial > 0, total))
        return tqdm(initial=initial, total=total, disable=True)

    monkeypatch.setattr(making, "tqdm", bar)
    sample(tmp_path, model=model, seconds=0.004, **BATCH)
    assert bars == [("level 2", True, 2), ("level 1", True, 4), ("level 0", True, 8)]


def test_a_song_shorter_than_any_window(model, tmp_path):
    out = sample(tmp_path, model=model, seconds=0.004, **BATCH)
    assert [codes(out, level).shape for level in (2, 1, 0)] == [(1, 2), (1, 4), (1, 8)]
    assert len(sound(out, 0, 0)) == 32


def test_levels_are_made_when_they_are_asked_for(song, model, tmp_path):
    options = {"model": model, "seconds": SECONDS, "count": 2, "seed": 5, **BATCH}
    out = sample(tmp_path / "a", levels=(2,), **options)
    assert (out / "level_2" / "item_0.wav").exists() and not (
        out / "level_1" / "item_0.wav"
    ).exists()
    assert [x["level"] for x in json.loads((out / "job.json").read_text())["levels"]] == [2]
    with pytest.raises(ConfigError, match="Level 0 is sampled from the codes of level 1"):
        sample(out, levels=(0,), **options)
    sample(out, job=out / "job.json", levels=(1, 0))  # the same directory, the levels below
    assert_same(song, out)
    record = json.loads((out / "job.json").read_text())
    assert [x["level"] for x in record["levels"]] == [2, 1, 0]
    with pytest.raises(ConfigError, match="levels has 3"):
        sample(tmp_path / "b", levels=(3,), **options)


def test_batches_draw_by_item_not_by_batch(song, model, tmp_path):
    """Rounding could turn a token at an edge of the distribution; with these numbers none is."""
    out = sample(
        tmp_path, model=model, seconds=SECONDS, count=2, seed=5, max_batch=1, **BATCH
    )  # fmt: skip
    assert_same(song, out)


@pytest.mark.slow
def test_one_prior_is_in_memory_at_a_time(model, tmp_path, monkeypatch):
    alive, most = [], []

    def load_prior(self, mesh, loaded, level, read=ModelDir.load_prior):
        gc.collect()
        most.append(sum(leaf() is not None for leaf in alive))
        prior = read(self, mesh, loaded, level)
        prior = dataclasses.replace(prior, params=jax.tree.map(jnp.copy, prior.params))
        alive.append(weakref.ref(jax.tree.leaves(prior.params)[0]))
        return prior

    monkeypatch.setattr(ModelDir, "load_prior", load_prior)
    options = {"model": model, "seconds": SECONDS, "count": 2, "max_batch": 1, **BATCH}
    sample(tmp_path / "a", **options)
    assert most == [0, 0, 0]
    sample(tmp_path / "b", stream=True, **options)
    assert most[3:] == [0, 1, 2]


def test_streaming_makes_the_same_songs_in_another_order(song, model, tmp_path, monkeypatch):
    order = []

    def step(self, was=making.Batch.step):
        made = was(self)
        order.append((self.level.level, self.made // 2))
        return made

    monkeypatch.setattr(making.Batch, "step", step)
    out = sample(
        tmp_path, model=model, seconds=SECONDS, count=2, seed=5, stream=True, **BATCH
    )  # fmt: skip
    assert_same(song, out)
    first = {level: next(i for i, at in enumerate(order) if at[0] == level) for level in (2, 1, 0)}
    ended = next(i for i, at in enumerate(order) if at == (2, 38))
    assert first[2] < first[1] < first[0] < ended
    # the middle's first window of 16 reads 8 codes: half a window of the top
    assert order[first[1] - 1] == (2, 8)


MIXED = MeshConfig(data=2, fsdp=2, tensor=2)


@pytest.fixture(scope="module")
def split_songs(model, tmp_path_factory):
    """Four songs, two a device and their maths over two; and the mesh and bytes of each prior."""
    out, seen = tmp_path_factory.mktemp("split") / "songs", {}

    def noted(config, mesh, params, *rest, was=making.make_loop):
        whole = sum(x.nbytes for x in jax.tree.leaves(params))
        seen[config.level] = (dict(mesh.shape), local_bytes(params) / whole)
        return was(config, mesh, params, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "make_loop", noted)
        options = {"model": model, "seconds": SECONDS, "count": 4, "seed": 5, **BATCH}
        return sample(out, mesh=MIXED, **options), seen


def test_the_mesh_that_is_asked_for_splits_priors_and_changes_no_song(song, split_songs):
    out, seen = split_songs
    assert seen.keys() == {0, 1, 2}
    for shape, share in seen.values():
        assert shape == {"data": 2, "fsdp": 2, "tensor": 2}
        assert share < 0.8  # of such small priors; what does not divide is whole
    for level in (2, 1, 0):  # in float32 no number of these songs is near enough to an edge
        np.testing.assert_array_equal(codes(out, level)[:2], codes(song, level))


def test_a_bfloat16_prior_is_sampled_in_float32_on_a_cpu(model, monkeypatch):
    def bfloat16(self, level, was=ModelDir.prior_config):
        config, note = was(self, level)
        return dataclasses.replace(config, dtype="bfloat16"), note

    monkeypatch.setattr(ModelDir, "prior_config", bfloat16)
    loaded, request = tiny_model.request(model, seconds=SECONDS)
    for level in resolve(request, loaded.loaded):
        assert level.config.dtype == "float32"


@pytest.mark.parametrize(
    ("stream", "mesh"),
    [
        (False, MeshConfig()),
        pytest.param(True, MeshConfig(), marks=pytest.mark.slow),
        pytest.param(False, MIXED, marks=pytest.mark.slow),
    ],
)
def test_killed_after_every_chunk_it_makes_the_same_songs(
    song, split_songs, model, tmp_path, stream, mesh
):
    """Each run samples one chunk of 7 tokens of one level; the next continues from disk."""
    song, count = (split_songs[0], 4) if mesh == MIXED else (song, 2)
    options = {"seconds": SECONDS, "count": count, "seed": 5, **BATCH}
    loaded = jukejax.load(model, mesh)
    request, runs = loaded.request(**options), 0
    while True:
        steps = sample_into(tmp_path, loaded.loaded, request, stream, chunk=7)
        step = next((step for step in steps if not step.finished), None)
        steps.close()
        if step is None:
            break
        runs += 1
    assert runs > 38 / 8 + 76 / 8 + 152 / 8 - 3  # the last chunk of a level finishes it
    assert_same(song, tmp_path)


def test_a_sharper_draw_by_level_and_item(model, tmp_path):
    options = {"model": model, "seconds": SECONDS, "levels": (2,), "seed": 1, **BATCH}
    loaded, request = tiny_model.request(count=2, top_k=(0, 0, 1), **options)
    free = dataclasses.replace(request.job.items[1], top_k=(0, 0, 9))
    job = dataclasses.replace(request.job, items=(request.job.items[0], free))
    loaded.make(request._replace(job=job), tmp_path / "mixed")
    greedy = sample(tmp_path / "greedy", **options | {"seed": 2}, top_k=(0, 0, 1))
    mixed = codes(tmp_path / "mixed", 2)
    np.testing.assert_array_equal(mixed[0], codes(greedy, 2)[0])  # whatever the seed
    assert (mixed[1] != mixed[0]).any()
    almost = sample(tmp_path / "p", **options, top_p=(1.0, 1.0, 1e-6))
    np.testing.assert_array_equal(codes(almost, 2)[0], mixed[0])


# --- from given codes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prompt(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompt") / "prompt.wav"
    t = np.arange(500) / RATE
    soundfile.write(path, 0.5 * np.stack([np.sin(3000 * t), np.sin(5000 * t)], 1), RATE)
    return path


def test_a_prompt_is_given_at_every_level_and_totals_are_exact(model, prompt, tmp_path):
    options = {"model": model, "prompt": prompt, "prompt_seconds": 0.05, **BATCH}
    out = sample(tmp_path / "a", seconds=SECONDS, count=2, **options)  # 38 codes: over a window
    audio = soundfile.read(prompt, dtype="float32")[0].mean(1)[:400]
    loaded = load_vqvae(model.parent / "vqvae", make_mesh(MeshConfig()))
    from jukejax.models import vqvae

    for level, hop in enumerate(HOPS):
        z = np.asarray(
            vqvae.encode(loaded.config, loaded.params, loaded.books, audio[None, :, None], level)
        )
        assert codes(out, level).shape == (2, 608 // hop)
        np.testing.assert_array_equal(codes(out, level)[:, : 400 // hop], np.repeat(z, 2, 0))
    soundfile.write(prompt.with_name("other.wav"), audio[::-1], RATE)
    with pytest.raises(ConfigError, match="samples of another job"):
        sample(tmp_path / "a", seconds=SECONDS, count=2,
               **options | {"prompt": prompt.with_name("other.wav")})  # fmt: skip
    prompt = prompt.rename(prompt.with_name("gone.wav"))
    again = sample(tmp_path / "b", job=out / "job.json")  # the prompt's codes are in the directory
    assert_same(out, again)
    prompt.rename(prompt.with_name("prompt.wav"))


def test_a_prompt_and_a_total_shorter_than_a_window(model, prompt, tmp_path):
    """The published program makes prompt + total here (4134 + 6890 instead of 6890 tokens)."""
    out = sample(
        tmp_path, model=model, prompt=prompt, prompt_seconds=0.01, seconds=0.02, **BATCH
    )  # fmt: skip
    assert [codes(out, level).shape[1] for level in (2, 1, 0)] == [10, 20, 40]
    assert len(sound(out, 0, 0)) == 160
    with pytest.raises(ConfigError, match=r"0\.02 seconds are given, but seconds is 0\.01"):
        sample(
            tmp_path / "b", model=model, prompt=prompt, prompt_seconds=0.02, seconds=0.01, **BATCH
        )


def test_a_song_is_continued_from_any_time_to_any_length(song, tmp_path):
    out = sample(
        tmp_path / "a", continue_from=song, at=0.05, item=(1,), count=2, seconds=0.1, seed=6,
        **DRAWN,
    )  # fmt: skip
    for level, hop in enumerate(HOPS):
        found, before = codes(out, level), codes(song, level)[1]
        assert found.shape == (2, 800 // hop)
        np.testing.assert_array_equal(found[:, : 400 // hop], [before[: 400 // hop]] * 2)
        assert len({tuple(z) for z in found}) == 2  # candidates differ
    record = json.loads((out / "job.json").read_text())
    assert record["origin"] == {"continues": str(song), "items": [1], "at": 0.05}
    assert [item["artist"] for item in record["items"]] == ["ella"] * 2
    assert_same(out, sample(tmp_path / "b", job=out / "job.json"))
    end = sample(tmp_path / "c", continue_from=song, seconds=0.1, levels=(2,),
                 **DRAWN,)  # fmt: skip
    np.testing.assert_array_equal(codes(end, 2)[:, :38], codes(song, 2))


def test_a_piece_that_was_cut_off_is_not_sampled_again(song, tmp_path):
    """Nor by the same song, seed and position; nor where the new piece is cut off in turn."""
    options = {"item": (0,), "at": 0.05, "seconds": SECONDS, "seed": 5, "levels": (2,), **DRAWN}
    first = sample(tmp_path / "a", continue_from=song, **options)
    second = sample(tmp_path / "b", continue_from=first, **options)
    made = [codes(out, 2)[0] for out in (song, first, second)]
    for z in made[1:]:
        np.testing.assert_array_equal(z[:25], made[0][:25])
    assert len({tuple(z[25:30]) for z in made}) == 3
    assert [read_job(out / "job.json")[1].redraws for out in (song, first, second)] == [0, 1, 2]
    end = sample(tmp_path / "c", continue_from=second, **options | {"at": 0.0, "seconds": 0.1})
    assert read_job(end / "job.json")[1].redraws == 2  # nothing is cut
    other = sample(tmp_path / "d", continue_from=second, **options | {"seed": 6})
    assert read_job(other / "job.json")[1].drawing_seed == 6


def test_continued_with_the_same_numbers_it_is_the_song_made_at_once(song, model, tmp_path):
    """In one window the past is the same, and so is what follows."""
    options = {"model": model, "seconds": 0.03, "seed": 5, "levels": (2,), **BATCH}
    whole = sample(tmp_path / "a", **options)
    begun = sample(tmp_path / "b", **options | {"seconds": 0.01}, total_seconds=0.03)
    rest = sample(
        tmp_path / "c", continue_from=begun, seconds=0.03, seed=5, levels=(2,),
        **DRAWN,
    )  # fmt: skip
    np.testing.assert_array_equal(codes(rest, 2), codes(whole, 2))


def test_a_finished_song_is_upsampled_again(song, tmp_path):
    out = sample(tmp_path / "a", upsample=song, item=(1,), seed=9, **DRAWN)
    np.testing.assert_array_equal(codes(out, 2), codes(song, 2)[1:])
    for level in (1, 0):
        assert codes(out, level).shape == (1, codes(song, level).shape[1])
        assert (codes(out, level) != codes(song, level)[1:]).any()


def test_chosen_items_and_times_are_upsampled(song, tmp_path):
    out = sample(
        tmp_path / "a", upsample=song, item=(1,), span=(0.02, 0.05), levels=(1, 0), seed=9,
        **DRAWN,
    )  # fmt: skip
    np.testing.assert_array_equal(codes(out, 2), codes(song, 2)[1:, 10:25])
    assert [codes(out, level).shape for level in (1, 0)] == [(1, 30), (1, 60)]
    request = json.loads((out / "job.json").read_text())["request"]
    assert (request["begin_seconds"], request["total_seconds"]) == (0.02, SECONDS)
    assert_same(out, sample(tmp_path / "b", job=out / "job.json"), (1, 0))
    assert not (tmp_path / "b" / "level_2" / "item_0.wav").exists()
    with pytest.raises(ConfigError, match="span is"):
        sample(
            tmp_path / "c",
            upsample=song,
            span=(0.05, 0.2),
            **DRAWN,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"continue_from": "a", "upsample": "x"}, "--continue-from and --upsample cannot be comb"),
        ({"at": 3.0}, "--at needs --continue-from"),
        ({"prompt_seconds": 3.0}, "--prompt-seconds needs --prompt"),
        ({"prompt": Path("gone.wav")}, "--prompt gone.wav: there is no such file"),
        ({"lyrics": Path("gone.txt")}, "--lyrics gone.txt: there is no such file"),
        ({"item": (1,)}, "--item needs"),
        ({"count": 0}, "count is 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(model, tmp_path, options, message):
    with pytest.raises((ConfigError, DataError), match=message):
        sample(tmp_path, model=model, **options)


def test_the_folder_is_looked_at_before_the_model_is_loaded(song, tmp_path, monkeypatch):
    monkeypatch.setattr("jukejax.load", lambda *_: pytest.fail("the model was loaded"))
    file = tmp_path / "file"
    file.touch()
    for out, options, message in (
        (file, {}, "file is a file; give an --out"),
        (file / "below", {}, "file is a file; give an --out"),
        (song, {"seed": 8}, r"of another job \(seed \d, now 8"),
        (song, {"seconds": 3.0}, r"of another job \(.*seconds .*, now 3.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            sample(out, model="nowhere", **options)


def test_a_sample_that_lacks_what_is_asked_for_is_refused(song, tmp_path):
    for options, message in (
        ({"item": (2,)}, "has no item 2"),
        ({"at": 1.0}, "at is 1"),
        ({"at": float("nan")}, "at is nan"),
        ({"artist": "elvis"}, "--artist cannot change"),
    ):
        with pytest.raises(ConfigError, match=message):
            sample(tmp_path, continue_from=song, **options)


# --- plans ----------------------------------------------------------------------------------------


def test_a_plan_takes_the_speed_that_was_measured(song, model, capsys):
    sample(song, model=model, seconds=SECONDS, count=2, seed=5, plan=True, **BATCH)
    text = capsys.readouterr().out
    assert "measured" in text and "at best" not in text.split("Time:")[0]
