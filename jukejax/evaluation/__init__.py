"""Measures of a model on held-out songs and of its samples: one file per question.

`pages` has what people look at: players, the explorer, the report.
"""
