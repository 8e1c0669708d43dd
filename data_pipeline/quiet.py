"""What libmpg123, inside libsndfile, prints on stderr about damaged MP3 files."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_MPG123 = re.compile(r"\[\S*libmpg123/.*\] *(?:error|warning): (.*)|(?:Note|Warning): .*|")


@contextlib.contextmanager
def captured_mpg123(problems: list[str]) -> Iterator[None]:
    """Keeps libmpg123's lines off the screen; what anything else prints follows at the end.

    Adds its errors and warnings of frames to `problems`, each once. Those about ID3 tags are
    dropped: mutagen reads tags.
    """
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                match = _MPG123.fullmatch(line)
                if match is None:
                    print(line, file=sys.stderr)
                elif match[1] and "/id3.c" not in line and match[1] not in problems:
                    problems.append(match[1])
