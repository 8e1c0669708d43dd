import sys

from experiments.convert import main

main(sys.argv[1:])
