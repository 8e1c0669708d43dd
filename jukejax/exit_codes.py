"""Exit codes of commands. Launchers start a command again after 70, 75 and the end by a signal."""

DONE = 0
MISTAKE = 1  # a mistake to mend: starting again would not help
USAGE = 2  # the same, on the command line
CRASH = 70  # what another start may mend: a hang, a passing fault of storage or network, a bug
RUN_AGAIN = 75  # EX_TEMPFAIL: stopped by SIGTERM after saving; the same command continues
STOPPED = 130  # Ctrl-C
