import sys

from experiments.evaluate.command import main

main(sys.argv[1:])
