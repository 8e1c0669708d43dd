import sys

from experiments.benchmark import main

main(sys.argv[1:])
