"""The kinds of labels that songs have and priors are conditioned on, a row each.

All code that names labels iterates over `KINDS`: vocabularies, manifests, loaders, the prior's
tables, sampling. To add a kind, add its row here, and a field of its name where users set or read
it: `LabelsConfig`, `Vocabulary`, `manifest.Song`, `songs.PreparedSong`, `job.Item`, and the options
of the sampling commands.
"""

from __future__ import annotations

from dataclasses import dataclass

from jukejax.errors import ConfigError


@dataclass(frozen=True)
class LabelKind:
    """One kind of label.

    Attributes:
      name: of the prior's embedding table, and in messages.
      field: of a song, of a line of the manifest, of a sampled item, and of the batch's array.
      table: field of `LabelsConfig` (rows) and of `Vocabulary` (names by id).
      most: field of `LabelsConfig` with the places of a bag of labels; "": a song has one label.
      optional: no published model has it; a prior has it where its table has rows.
      decades: labels are years, which fall into decades.
      tag: key of a sound file's tags that `prepare scan` reads; "": none.
      option: of the sampling commands, without dashes.
    """

    name: str
    field: str
    table: str
    most: str = ""
    optional: bool = False
    decades: bool = False
    tag: str = ""
    option: str = ""

    def shape(self, labels: LabelsConfig) -> tuple[int, ...]:
        """Shape of the ids of one song: () of one label, (places,) of a bag."""
        return (int(getattr(labels, self.most)),) if self.most else ()


ARTIST = LabelKind("artist", "artist", "artists", tag="artist", option="artist")
GENRE = LabelKind("genre", "genres", "genres", most="max_genres", tag="genre", option="genre")
YEAR = LabelKind("year", "year", "years", optional=True, decades=True, tag="date", option="year")
TAG = LabelKind("tag", "tags", "tags", most="max_tags", optional=True, option="tags")
KINDS = (ARTIST, GENRE, YEAR, TAG)


@dataclass(frozen=True)
class LabelsConfig:
    """Artist, genre, year, tag and timing conditioning of a prior (paper section 4.1)."""

    artists: int = 0  # rows of the artist table; 0: as many as the data's vocabulary has
    genres: int = 0  # rows of the genre table; 0: as many as the data's vocabulary has
    years: int = 0  # rows of the year table; 0: not used, -1: as many as the vocabulary has
    tags: int = 0  # rows of the tag table; 0: not used, -1: as many as the vocabulary has
    max_tags: int = 8  # tags of a song that are used, at most
    max_genres: int = 5  # genres of a song that are used, at most
    timing_bins: int = 128  # used by the top level alone
    min_seconds: float = 60.0  # song lengths that the timing bins span
    max_seconds: float = 600.0

    def __post_init__(self) -> None:
        for kind in KINDS:
            if kind.optional and kind.most and getattr(self, kind.most) < 1:
                raise ConfigError(f"{kind.most} is {getattr(self, kind.most)}; give 1 or more.")

    @property
    def kinds(self) -> tuple[LabelKind, ...]:
        """The kinds that the prior is conditioned on."""
        return tuple(kind for kind in KINDS if not kind.optional or getattr(self, kind.table))

    @property
    def tables(self) -> dict[str, int]:
        """Rows of the tables of names that are used, by name."""
        return {kind.table: getattr(self, kind.table) for kind in self.kinds}

    @property
    def sized(self) -> bool:
        """Whether all tables have their rows; those of some presets wait for data."""
        return min(self.tables.values()) > 0

    @property
    def arrays(self) -> tuple[str, ...]:
        """Arrays of a batch that the conditioning reads."""
        return (*(kind.field for kind in self.kinds), "total_length", "offset")
