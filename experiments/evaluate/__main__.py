import sys

from experiments.evaluate import command, explorer

if sys.argv[1:2] == ["explorer"]:
    explorer.main(sys.argv[2:])
else:
    command.main(sys.argv[1:])
