"""Does a classifier of real songs name what a sample was asked for? Logistic regression.

It is fitted on the embeddings of windows of training songs (standardised, classes weighed alike);
a sound's class is that of the highest mean log probability over its windows.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def consistency(
    train: tuple[NDArray[Any], NDArray[Any], Sequence[str]],
    others: dict[str, tuple[NDArray[Any], NDArray[Any], Sequence[str]]],
) -> dict[str, Any] | None:
    """How often the classifier names the label, for each set of sounds.

    Args:
      train: vectors (n, D), (n,) of which sound each is, and the label of each sound ("": none).
      others: sets of the same form. Labels that training has not are left out.

    Returns:
      "classes", "chance" (the greatest share of a class in training), and per set "accuracy" (None
      where nothing is left) of "count" sounds; None where training has fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    vectors, songs, labels = train
    named = np.array([bool(labels[i]) for i in songs])
    classes = collections.Counter(label for label in labels if label)
    if len(classes) < 2:
        return None
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
    )
    model.fit(vectors[named], [labels[i] for i in songs[named]])
    found: dict[str, Any] = {
        "classes": len(classes),
        "chance": max(classes.values()) / sum(classes.values()),
    }
    for name, (x, of, asked) in others.items():
        right = []
        for i, label in enumerate(asked):
            if label in classes and (of == i).any():
                scores = model.predict_log_proba(x[of == i]).mean(axis=0)
                right.append(model.classes_[int(np.argmax(scores))] == label)
        found[name] = {"accuracy": float(np.mean(right)) if right else None, "count": len(right)}
    return found
