"""Digests of batches, to compare readers: other shards, later steps, new processes."""

import hashlib
import itertools
import json
import sys
from pathlib import Path

from batches import audio_batches, code_batches

from jukejax.config import PriorConfig, from_dict
from jukejax.text.labels import Vocabulary


def make(options, start_step=0, rows=None):
    """The audio or code loader that `options` describe, a JSON value."""
    given = dict(options)
    kind, folder = given.pop("kind"), given.pop("folder")
    if kind == "audio":
        return audio_batches(folder, start_step=start_step, rows=rows, **given)
    config = from_dict(PriorConfig, given.pop("config"))
    names = Vocabulary.load(Path(folder) / "labels.json")
    return code_batches(folder, config, names, start_step=start_step, rows=rows, **given)


def example_digests(batches, steps):
    """A digest of every example of the next steps."""
    out = []
    for batch in itertools.islice(batches, steps):
        names = sorted(batch)
        rows = range(len(batch[names[0]]))
        parts = ([batch[name][row].tobytes() for name in names] for row in rows)
        out.append([hashlib.sha256(b"".join(part)).hexdigest() for part in parts])
    return out


if __name__ == "__main__":
    options, steps = json.loads(sys.argv[1])
    print(json.dumps(example_digests(make(options), steps)))
