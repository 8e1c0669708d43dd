"""Does a classifier of real songs name the label that a sample is conditioned on?

Logistic regression on the embeddings of windows of training songs (standardised, classes weighted
equally); a sound's class has the highest mean log probability over its windows.
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
      train: vectors (n, D), the sound (n,) of each, and the label of each sound ("": none).
      others: sets of the same form. Labels that are not in training are left out.

    Returns:
      "classes", "chance" (the largest class's share in training), and per set "accuracy" over
      "count" sounds (None for 0); None where training has fewer than two classes.
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
    report: dict[str, Any] = {
        "classes": len(classes),
        "chance": max(classes.values()) / sum(classes.values()),
    }
    for name, (x, of, asked) in others.items():
        right = []
        for i, label in enumerate(asked):
            if label in classes and (of == i).any():
                scores = model.predict_log_proba(x[of == i]).mean(axis=0)
                right.append(model.classes_[int(np.argmax(scores))] == label)
        report[name] = {"accuracy": float(np.mean(right)) if right else None, "count": len(right)}
    return report
