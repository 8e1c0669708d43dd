"""Names of the artists and genres that an imported model was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from experiments.convert.model import prior_config
from jukejax.config import ConfigError
from jukejax.interop.importing import Opened
from jukejax.text.labels import Vocabulary

IdFiles = tuple[Path, Path]  # of artists and of genres, lines of name;id


def rule_of(opened: Opened) -> Literal["v2", "v3"]:
    """How a prior's names are looked up: as its settings say, else v3 has one genre a song."""
    labels = prior_config(opened).labels
    v3 = labels is not None and labels.max_genres == 1
    return "v3" if (opened.file.hps or {}).get("labels_v3", v3) else "v2"


def vocabularies(
    priors: Sequence[Opened], v2_ids: IdFiles | None, v3_ids: IdFiles | None
) -> dict[int, Vocabulary]:
    """Label names by level of the priors that have labels; numbers where no files are given.

    Raises:
      ConfigError: files are given, but not those of a prior's rule.
      DataError: a file is not of the prior's tables.
    """
    files, names = {"v2": v2_ids, "v3": v3_ids}, {}
    for opened in priors:
        config, rule = prior_config(opened), rule_of(opened)
        if (labels := config.labels) is None:
            continue
        sizes, paths = (labels.artists, labels.genres), files[rule]
        if paths is not None:
            names[config.level] = Vocabulary.from_id_files(*paths, rule, *sizes)
        elif any(files.values()):
            raise ConfigError(
                f"{opened.file.path} was trained with label names of {rule}; give --{rule}-ids "
                "with its files of artists and genres too."
            )
        else:
            names[config.level] = Vocabulary.placeholder(*sizes)
    if names and not any(files.values()):
        print("No --v2-ids or --v3-ids: labels are called 'artist 1', 'genre 1' and so on.")
    return names
