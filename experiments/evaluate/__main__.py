import importlib
import sys

# What takes other arguments than the suites do; imported when asked for.
COMMANDS = ("compare", "explorer", "fad-check")

arguments = sys.argv[1:]
if arguments and arguments[0] in COMMANDS:
    module = arguments[0].replace("-", "_")
    importlib.import_module(f"experiments.evaluate.{module}").main(arguments[1:])
else:
    importlib.import_module("experiments.evaluate.command").main(arguments)
