"""Questions asked of a trained model on held-out songs: `jukejax evaluate`.

The suites are `jukejax.evaluation`'s; here are the commands that run and show them.
"""
