"""The request for a sample: what is refused, its length, and its JSON."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax.config import ConfigError, from_dict, to_dict
from jukejax.sampling.job import Item, Job
from jukejax.sampling.resolve import check_levels


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": -1.0}, "seconds is -1.0"),
        ({"seconds": 20.0, "total_seconds": 19.5}, r"total_seconds is 19\.5.*shorter"),
        ({"temperature": (0.98, 0.0, 0.98)}, r"temperature is 0\.0"),
        ({"temperature": (-1.0,)}, r"temperature is -1\.0"),
        # float32 flushes them to 0, or the logits divided by them overflow: every code was 0
        ({"temperature": (1e-38,)}, r"temperature is 1e-38.*--top-k 1"),
        ({"items": (Item(temperature=(1e-46,)),)}, "temperature is 1e-46"),
        ({"top_p": (1e-46,)}, "top_p is 1e-46"),
        ({"top_k": (2**31,)}, "top_k is 2147483648"),
        ({"begin_seconds": 40_000, "seconds": 20_000}, "begin_seconds is 40000 .* ends at 60000"),
    ],
)
def test_impossible_jobs_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Job(**fields)


def test_a_song_as_long_as_its_sample_is_allowed():
    assert Job(seconds=20.0, total_seconds=20.0).total_seconds == 20.0


@pytest.mark.parametrize(
    ("seconds", "samples"),
    [(1.0, 1000), (1.001, 1008), (1.008, 1008), (0.001, 8), (0.0001, 8), (20.0, 20_000)],
)
def test_length_is_rounded_up_to_whole_top_codes(seconds, samples):
    assert Job(seconds=seconds).samples(1000, 8) == samples


@given(st.floats(0.001, 600.0), st.integers(1, 300))
def test_length_is_the_least_multiple_that_holds_the_seconds(seconds, hop):
    samples = Job(seconds=seconds).samples(44_100, hop)
    assert samples % hop == 0
    assert samples - hop < round(seconds * 44_100) <= samples


JOBS = st.builds(
    Job,
    model=st.text(),
    items=st.lists(
        st.builds(
            Item,
            artist=st.text(),
            genres=st.lists(st.text(), max_size=2).map(tuple),
            lyrics=st.text(),
        ),
        max_size=2,
    ).map(tuple),
    seconds=st.floats(0.1, 100.0),
    total_seconds=st.one_of(st.just(0.0), st.floats(100.0, 600.0)),
    seed=st.integers(0, 2**31 - 1),
    temperature=st.lists(st.floats(0.01, 2.0), max_size=4).map(tuple),
    hop_fraction=st.lists(st.floats(0.0, 1.0, exclude_min=True), max_size=4).map(tuple),
)


@given(JOBS)
def test_json_round_trip(job):
    assert from_dict(Job, json.loads(json.dumps(to_dict(job)))) == job


def test_defaults_are_for_the_three_published_levels():
    job = Job()
    assert len(job.temperature) == len(job.hop_fraction) == 3
    assert job.hop_fraction == (0.5, 0.5, 0.125)  # bottom first: the top has the longest past


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed": 1}, "no field 'sed'; did you mean 'seed'"),
        ({"seed": 1.5}, r"request\.seed is 1\.5, expected int"),
        ({"items": [{"artists": "A"}]}, r"request\.items has no field 'artists'.*'artist'"),
        ({"type": "PriorConfig"}, "is a PriorConfig, expected a Job"),
        ({"temperature": [0.0]}, r"temperature is 0\.0"),
    ],
)
def test_json_of_another_thing_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Job, to_dict(Job()) | change, "request")


def test_jobs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Job().seed = 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", float("nan")),
        ("seconds", float("inf")),
        ("temperature", (0.9, float("nan"))),
        ("hop_fraction", (0.5, 2.0)),
        ("hop_fraction", (0.0,)),
        ("total_seconds", float("nan")),
        ("seed", -1),
        ("seed", 2**31),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_anything_is_loaded(field, value):
    with pytest.raises(ConfigError, match=field):
        Job(**{field: value})


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_default_drawing_is_of_models_with_fewer_levels_too(levels):
    assert check_levels(Job(), levels) == [*range(levels)][::-1]
    asked = Job(temperature=(0.9,) * levels, hop_fraction=(0.5,) * levels)
    assert check_levels(asked, levels) == [*range(levels)][::-1]
    with pytest.raises(ConfigError, match=f"temperature has 4 values, .* {levels} levels"):
        check_levels(Job(temperature=(0.9,) * 4), levels)
    if levels < 3:
        with pytest.raises(ConfigError, match="hop_fraction has 3 values"):
            check_levels(Job(hop_fraction=(0.5, 0.5, 0.5)), levels)
