import importlib
import sys

# What takes other arguments than the suites do; imported when asked for.
COMMANDS = ("compare", "explorer")

arguments = sys.argv[1:]
if arguments and arguments[0] in COMMANDS:
    importlib.import_module(f"experiments.evaluate.{arguments[0]}").main(arguments[1:])
else:
    importlib.import_module("experiments.evaluate.command").main(arguments)
