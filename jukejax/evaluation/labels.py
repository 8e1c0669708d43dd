"""The suite `labels`: which artists and genres has the top prior learned to be similar?

Maps (PCA and t-SNE) and nearest neighbours of its embedding tables; OUT/labels.html is an
interactive page of them, opened from disk. W width of an embedding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jukejax.errors import CheckpointError
from jukejax.evaluation.pages.plots import png, subplots
from jukejax.evaluation.pages.templates import write_html
from jukejax.evaluation.results import Figure, Table
from jukejax.evaluation.subject import Lacking, Result, Subject, Suite
from jukejax.parallel.distributed import gathered
from jukejax.text.labels import Vocabulary

KINDS = {"artist": "artists", "genre": "genres"}  # embedding table -> field of Vocabulary
NEIGHBOURS = 5
SHOWN = 24  # names in a table and in a picture, at most


def sklearn(module: str) -> Any:
    """A module of scikit-learn.

    Raises:
      Lacking: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise Lacking(
            "This suite needs scikit-learn; install it with pip install 'jukejax[evaluate]'."
        ) from error


def cosines(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Cosines (n, n) between rows (n, W); 0 for a row of zeros."""
    rows = rows.astype(np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def describe(names: list[str], rows: NDArray[Any]) -> Result:
    """Maps and nearest neighbours of a table's named rows (n, W).

    "pca" and "tsne" are places (n, 2), t-SNE by cosine distance, None for fewer than 5 names;
    "explained" is each PCA axis's part of the variance.
    """
    decomposition = sklearn("decomposition")
    rows = rows.astype(np.float64)
    pca = decomposition.PCA(min(2, *rows.shape), random_state=0)
    places = pca.fit_transform(rows)
    tsne = None
    if len(names) >= 5:
        perplexity = min(30.0, (len(names) - 1) / 3)
        method = sklearn("manifold").TSNE(
            2, perplexity=perplexity, metric="cosine", init="random", random_state=0
        )
        tsne = method.fit_transform(rows).astype(float).round(3).tolist()
    near = cosines(rows)
    np.fill_diagonal(near, -np.inf)
    order = np.argsort(-near, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(names) - 1)]
    explained = np.nan_to_num(pca.explained_variance_ratio_)
    return {
        "names": names,
        "pca": np.pad(places, ((0, 0), (0, 2 - places.shape[1]))).round(5).tolist(),
        "explained": explained.tolist(),
        "tsne": tsne,
        "neighbours": [
            [[int(j), round(float(near[i, j]), 4)] for j in row] for i, row in enumerate(order)
        ],
    }


def labelled_level(subject: Subject) -> int:
    """The highest level whose prior has labels.

    Raises:
      Lacking: there is none.
    """
    for level in subject.prior_levels:
        if subject.prior_config(level).labels:
            return level
    raise Lacking("No prior of the model has labels, so it has no label embeddings.")


def source(subject: Subject) -> dict[str, Any]:
    """The one prior that is measured."""
    return {"priors": subject.prior_marks([labelled_level(subject)])}


def measure(subject: Subject) -> Result:
    """`describe` of the highest prior's embeddings of artists and genres; writes the page."""
    level = labelled_level(subject)
    vocabulary = Vocabulary.load(subject.directory.labels(level))
    learned = subject.load_prior(level).params["labels"]
    tables = gathered({table: learned[table] for table in KINDS})
    result: Result = {"level": level, "kinds": {}}
    for table, kind in KINDS.items():
        rows = np.asarray(tables[table], np.float32)
        if not np.isfinite(rows).all():
            raise CheckpointError(
                f"The {table} table of level {level} holds numbers that are not finite; go back to "
                "an earlier checkpoint."
            )
        named = [(i, name) for i, name in enumerate(getattr(vocabulary, kind)) if name and i]
        if len(named) >= 3:  # without "unknown", which stands first
            index, names = zip(*named, strict=True)
            result["kinds"][kind] = describe(list(names), rows[list(index)])
    if not result["kinds"]:
        raise Lacking(f"{subject.directory.labels(level)} names fewer than 3 artists and genres.")
    write_html(subject.out / "labels.html", "labels.html.j2", kinds=result["kinds"])
    return result


def tables(result: Result) -> list[Table]:
    out = []
    for kind, of_kind in result["kinds"].items():
        names = of_kind["names"]
        explained = " and ".join(f"{100 * x:.0f} %" for x in of_kind["explained"])
        title = (
            f"Nearest {kind} in the table of level {result['level']}, by cosine, the first "
            f"{min(SHOWN, len(names))} of {len(names)}. Two PCA axes have {explained} of the "
            "variance. All of them, interactive: labels.html."
        )
        rows = [
            (name, ", ".join(f"{names[j]} {cosine:.2f}" for j, cosine in near[:3]))
            for name, near in zip(names[:SHOWN], of_kind["neighbours"], strict=False)
        ]
        out.append(Table(title, (kind, "nearest"), rows))
    return out


def figures(result: Result) -> list[Figure]:
    out = []
    for kind, of_kind in result["kinds"].items():
        maps = [("PCA", of_kind["pca"]), ("t-SNE", of_kind["tsne"])]
        maps = [(name, places) for name, places in maps if places is not None]
        figure, axes = subplots(1, len(maps), height=4.2)
        for axis, (name, places) in zip(axes[0], maps, strict=True):
            x, y = np.array(places).T
            axis.scatter(x, y, s=12)
            for i in range(min(SHOWN, len(x))):
                axis.annotate(of_kind["names"][i], (x[i], y[i]), fontsize=7)
            axis.set(title=name, xticks=[], yticks=[])
        caption = f"The table of {kind}. Names near each other have similar embeddings."
        out.append(Figure(f"Map of {kind}", caption, png(figure)))
    return out


SUITE = Suite(
    title="Labels",
    about="Which artists and genres the prior has learned to be similar, by its embeddings.",
    measure=measure,
    tables=tables,
    needs=("vqvae", "labels"),
    figures=figures,
    source=source,
)
