import sys

from experiments.benchmark import main

if __name__ == "__main__":  # not in a process that a subject spawns
    main(sys.argv[1:])
