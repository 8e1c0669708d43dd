"""The benchmark of encoding, on a tiny VQ-VAE."""

import json

import numpy as np
import soundfile
import tiny_model

from data_pipeline import prepare
from data_pipeline.plan import Options
from experiments import benchmark
from experiments.benchmark import encode


def test_ways_give_the_same_codes(tmp_path, capsys):
    tiny_model.write(tmp_path)
    rng, lines = np.random.default_rng(0), []
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", rng.uniform(-0.9, 0.9, (9000, 2)), tiny_model.RATE)
        lines.append(json.dumps({"id": f"s{i}", "audio": f"{i}.wav"}))
    (tmp_path / "songs.jsonl").write_text("\n".join(lines))
    options = Options(min_seconds=0, sample_rate=tiny_model.RATE)
    data = tmp_path / "songs"
    prepare.build(tmp_path / "songs.jsonl", data, options=options, show_progress=False)
    line = f"encode --data {data} --vqvae {tmp_path / 'vqvae'} --songs 2 --seconds 1"
    benchmark.main([*line.split(), "--piece-seconds", "0.1", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["music_seconds"] == 1.5
    assert found["codes"] == sum(-(-n // 16) * 7 for n in (4000, 8000))
    assert found["beyond_ties"] == 0
    assert all(found[way][1] > 0 for way in ("batched", "at_once"))


def test_a_difference_would_be_counted():
    model = encode.LoadedVQVAE(None, None, (encode.Codebook(np.eye(3), None, None),), 0, "")
    vectors = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0, 1.0]])
    whole = [[(np.array([0, 0, 2]), vectors)]]
    found = encode.beyond_ties(model, [[np.array([0, 1, 0])]], whole)
    assert found == {"codes": 3, "differ": 2, "beyond_ties": 1}
