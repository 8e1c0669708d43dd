import sys

from experiments.scaling import main

if __name__ == "__main__":
    main(sys.argv[1:])
