"""jukejax evaluate: suites of a model, or one of the commands beside them."""

import importlib
import sys

# Beside `evaluate SUITES...`; imported when asked for.
COMMANDS = {
    "compare": "experiments.evaluate.compare",
    "explorer": "experiments.evaluate.explorer",
    "lines": "experiments.evaluate.lines",
}


def main(arguments: list[str]) -> None:
    name = arguments[0] if arguments else ""
    module = importlib.import_module(COMMANDS.get(name, "experiments.evaluate.suites"))
    module.main(arguments[1:] if name in COMMANDS else arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
