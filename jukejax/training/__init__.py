"""Training: losses, optimizer, one train step, the loop around it, checkpoints, metrics.

Read `tasks` (what is trained), `step` (one step on a mesh) and `loop` (everything around steps).
"""
