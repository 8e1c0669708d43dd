"""The sizes of the ladder, its rules, and the files of what was measured. No jax."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jukejax import code_version, files, presets
from jukejax.config import PriorExperiment
from jukejax.errors import ConfigError, DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class Rung:
    """A prior of the ladder: `songs_prior` of another size."""

    name: str  # its parameters, about
    width: int
    depth: int
    heads: int


RUNGS = (
    Rung("0.4M", 36, 3, 2),
    Rung("0.8M", 64, 5, 2),
    Rung("1.6M", 112, 5, 4),
    Rung("3.3M", 184, 6, 4),
    Rung("6.6M", 272, 8, 4),
)
RATES = (1e-3, 2e-3, 4e-3, 8e-3)  # learning rates that the sweep tries at the smallest rung
SWEEP = 1 / 8  # of its tokens, each
WARMUP = 1 / 20  # of a run's steps
AVERAGED = 1 / 20  # of a run's steps: how far the averaged weights look back
# The rate of a rung is the smallest rung's times (its width / the rung's) ** RATE_EXPONENT. That
# all parameters share a rate is the published optimizer's rule. The exponent is near the
# C ** -0.125 that DeepSeek-AI fitted (arXiv 2401.02954, section 3.1) where C ~ N^2 ~ width^4.
RATE_EXPONENT = 0.5


@dataclass(frozen=True)
class Ladder:
    """What the actions share."""

    data: Path
    """Codes (`jukejax encode`) of songs with the tracks phones and notes, and a test split."""
    out: Path = Path("runs/scaling")
    """Gets a workdir of each rung."""
    record: Path = Path("docs/scaling")
    """Gets sweep.jsonl, results.jsonl and forecast.json: small files, to be committed."""
    tokens_per_parameter: float = 20.0
    """Training tokens of a rung, over its parameters."""
    batch: int = 4
    """Windows of a step, of every rung."""

    def experiment(
        self, rung: Rung, share: float = 1.0, rate: float | None = None
    ) -> PriorExperiment:
        """A rung fitted to the data: `share` of its tokens at a learning rate.

        Raises:
          DataError: no codes.
          ConfigError: the songs lack a track.
        """
        from data_pipeline.codes import codes_info
        from data_pipeline.songs import prepared_songs
        from experiments.data import fit_labels, fit_tracks
        from jukejax import costs
        from jukejax.text.labels import Vocabulary

        info, base = codes_info(self.data), presets.songs_prior()
        assert base.model.tracks is not None
        model = replace(
            base.model, level=len(info.hops) - 1, hop=info.hops[-1], codes=info.codes,
            groups=info.groups,
            sample_rate=int(prepared_songs(self.data).column("sample_rate")[0]),
            width=rung.width, depth=rung.depth, heads=rung.heads,
            init_scale=50.0 * rung.width**-0.5,  # standard deviations of 1 / sqrt(width)
            tracks=replace(base.model.tracks, width=rung.width // 4),
        )  # fmt: skip
        names = Vocabulary.load(self.data / "labels.json")
        fitted = fit_tracks(fit_labels(replace(base, model=model), names), self.data)
        tokens = share * self.tokens_per_parameter * costs.parameters(fitted)
        steps = max(1, round(tokens / (self.batch * model.n_ctx)))
        schedule = replace(
            base.optimizer, learning_rate=rate or base.optimizer.learning_rate,
            warmup_steps=max(1, round(WARMUP * steps)), decay_steps=steps,
        )  # fmt: skip
        decay = 1 - 1 / max(2.0, AVERAGED * steps)
        train = replace(base.train, steps=steps, batch=self.batch, ema_decay=decay)
        return replace(fitted, optimizer=schedule, train=train)

    def flops(self, experiment: PriorExperiment) -> int:
        """Model FLOPs of a run."""
        from jukejax import costs

        return costs.train_flops(experiment) * experiment.train.batch * experiment.train.steps

    def training_tokens(self) -> int:
        """Codes of the training songs, at the level of the priors."""
        from data_pipeline.codes import codes_info, codes_length
        from data_pipeline.songs import prepared_songs

        info = codes_info(self.data)
        samples = prepared_songs(self.data).of_split("train").column("n_samples")
        return int(codes_length(samples, info.hops[-1], info.block).sum())

    # --- what was measured ------------------------------------------------------------------------

    def digest(self) -> str:
        """Of the codes; results of other codes are refused."""
        from experiments.evaluation_data import PreparedCodes

        return PreparedCodes(self.data).digest()

    def rows(self, name: str) -> list[Row]:
        """The lines of a file of the record; none where it is missing.

        Raises:
          DataError: a line is not JSON, or of other codes than the data.
        """
        path = self.record / f"{name}.jsonl"
        if not path.exists():
            return []
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise DataError(f"{path} has a line that is not JSON ({error}); mend it.") from error
        if {row.get("data") for row in rows} - {self.digest()}:
            raise DataError(
                f"{path} has results on other codes than {self.data}; give another --record."
            )
        return rows

    def add(self, name: str, row: Row) -> None:
        """Adds a line to a file of the record, with the codes' digest, the commit and the date."""
        line = {**row, "data": self.digest(), **stamp()}
        files.write_json_lines(self.record / f"{name}.jsonl", [*self.rows(name), line])

    def result(self, rung: str) -> Row | None:
        """The result of a rung, or None."""
        return next((row for row in self.rows("results") if row["rung"] == rung), None)

    def results(self) -> dict[Rung, Row]:
        """The results that there are, smallest rung first."""
        found = {rung: self.result(rung.name) for rung in RUNGS}
        return {rung: row for rung, row in found.items() if row}

    def rate(self, rung: Rung) -> float:
        """The learning rate of a rung: the sweep's best, transferred by width.

        Raises:
          ConfigError: the sweep has not tried all rates.
        """
        tried = {row["learning_rate"]: row["bits_per_token"] for row in self.rows("sweep")}
        if missing := set(RATES) - tried.keys():
            raise ConfigError(
                f"The sweep has not tried the learning rate {min(missing)}; run "
                "`jukejax scaling sweep` first."
            )
        best = min(tried, key=lambda rate: tried[rate])
        return best * (RUNGS[0].width / rung.width) ** RATE_EXPONENT


def stamp() -> Row:
    """The date (UTC), and the commit of this code, "+" where files differ from it."""
    commit = code_version.commit()
    if not commit:
        raise ConfigError(
            "The commit of the code is not known, but results name it; run in a git checkout."
        )
    now = datetime.datetime.now(datetime.UTC)
    return {"date": now.isoformat(timespec="seconds"), "commit": commit}
