"""Train on many processes or hosts, and restart them when they are stopped or killed.

jukejax launch prior_5b --on local --data D --workdir W --processes 2 --devices 4
jukejax launch prior_5b --on slurm --data D --workdir W --nodes 8
jukejax launch prior_5b --on gke --data D --workdir W --topology v5e:16x16 --image I --claim C
jukejax launch prior_5b --on tpu-vm --data D --workdir W --topology v5e:16x16 --zone Z

`local` runs the processes. The others write files to WORKDIR/launch and print the command that
submits them. Logs are in WORKDIR/logs and compiled programs in WORKDIR/compiled; exit codes mean
the same everywhere (`experiments.cli`).

A target is a dataclass here: its fields are its options, `files(job)` gives the files to write and
`submit(job, folder)` the command to run. `__main__.TARGETS` lists them.
"""
