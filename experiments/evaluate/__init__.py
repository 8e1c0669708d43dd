"""Questions asked of a trained model on held-out songs, a suite of figures each.

python -m experiments.evaluate all --model runs/demo/model --songs runs/demo/songs \
    --codes runs/demo/codes --out runs/demo/evaluation

A suite's result lies in OUT/SUITE.json with what it was computed from; while that holds, the suite
is not computed again. A suite is a module here with a `SUITE`, named in `command.SUITES`.
"""
