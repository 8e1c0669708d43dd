"""Voice separators and aligners that users install in environments of their own.

A tool is a command line with places for {audio}, {lyrics}, {corpus} and {out}; its output is read
here. The readers are tested on examples of each tool's documented output, not on the tools.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from jukejax.errors import DataError

Timed = tuple[str, float, float]  # a word as the tool writes it, start and end in seconds
Times = list[tuple[float, float] | None]

# Usual command lines; --separator-command and --aligner-command replace them.
COMMANDS = {
    "spleeter": "spleeter separate -p spleeter:2stems -o {out} {audio}",
    "demucs": "demucs --two-stems=vocals -o {out} {audio}",
    "autolyricsalign": "singularity exec kaldi.simg ./RunAlignment.sh {audio} {lyrics} {out}",
    "mfa": "mfa align --clean --single_speaker {corpus} english_us_arpa english_us_arpa {out}",
}
SEPARATORS = ("spleeter", "demucs")
ALIGNERS = ("autolyricsalign", "mfa")
_PLACES = ("audio", "lyrics", "corpus", "out")
_INSTALL = {
    "spleeter": "`pip install spleeter` in an environment of its own",
    "demucs": "`pip install demucs` in an environment of its own",
    "autolyricsalign": "get NUS AutoLyrixAlign with its Kaldi image, and Singularity, and run from "
    "its folder",
    "mfa": "`conda create -n mfa -c conda-forge montreal-forced-aligner`, then `mfa model download "
    "acoustic english_us_arpa` and `mfa model download dictionary english_us_arpa`",
}


def program(tool: str, command: str) -> list[str]:
    """The parts of a tool's command line, or of its usual one if `command` is empty.

    Raises:
      DataError: the line cannot be parsed, or its program is not installed.
    """
    option = f"--{'separator' if tool in SEPARATORS else 'aligner'}-command"
    line = command or COMMANDS[tool]
    try:
        parts = shlex.split(line)
        [part.format(**dict.fromkeys(_PLACES, "")) for part in parts]
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"{option} {line!r} cannot be parsed ({error}); it may name {{audio}}, {{lyrics}}, "
            "{corpus} and {out}"
        ) from error
    if not parts or shutil.which(parts[0]) is None:
        raise DataError(
            f"{parts[0] if parts else tool} is not installed; {_INSTALL[tool]}; or name another "
            f"command with {option}"
        )
    return parts


def run_tool(tool: str, command: str, **places: Path) -> None:
    """Runs a tool with its places filled in; DataError if it is missing or fails."""
    filled = dict.fromkeys(_PLACES, "") | {name: str(path) for name, path in places.items()}
    parts = [part.format(**filled) for part in program(tool, command)]
    done = subprocess.run(parts, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise DataError(f"{tool} ended with code {done.returncode}: {last[0]:.300}")


def separate(tool: str, audio: Path, out: Path, command: str = "") -> Path:
    """The voice that a separator writes below `out`: its path."""
    run_tool(tool, command, audio=audio, out=out)
    voices = sorted(path for path in out.rglob("vocals.*") if path.is_file())
    if not voices:
        raise DataError(f"{tool} wrote no vocals.wav; check its command line")
    return voices[0]


def align(tool: str, audio: Path, lyrics: Sequence[str], folder: Path, command: str = "") -> Times:
    """Word times from an aligner; None for words that it left out.

    Args:
      tool: "autolyricsalign" or "mfa".
      audio: the voice as a wav file.
      lyrics: words as in a dictionary, none empty.
      folder: an empty folder for the tool's input and output.
      command: its command line; empty: the usual one.
    """
    corpus, out = folder / "corpus", folder / "out"
    corpus.mkdir()
    wav, text = corpus / "song.wav", corpus / "song.txt"
    shutil.copyfile(audio, wav)
    text.write_text(" ".join(lyrics) + "\n", encoding="utf-8")
    places = {"audio": wav, "lyrics": text, "corpus": corpus, "out": out}
    run_tool(tool, command, **places)
    written = [out] if out.is_file() else sorted(out.rglob("*.TextGrid"))
    if not written:
        raise DataError(f"{tool} wrote no alignment; check its command line")
    content = written[0].read_text(encoding="utf-8-sig")
    return match(lyrics, read_textgrid(content) if tool == "mfa" else read_lines(content))


def read_lines(content: str) -> list[Timed]:
    """AutoLyrixAlign's lines `start end WORD`, separated by spaces, tabs or commas; no BREATH*.

    Raises:
      DataError: a line is of another form.
    """
    words = []
    for number, line in enumerate(content.splitlines(), start=1):
        parts = re.split(r"[\s,;]+", line.strip())
        if parts == [""]:
            continue
        try:
            word, start, end = parts[2], float(parts[0]), float(parts[1])
        except (IndexError, ValueError) as error:
            raise DataError(
                f"line {number} of the alignment is {line!r:.80}, not `start end WORD`"
            ) from error
        if not word.startswith(("BREATH", "<", "*")):
            words.append((word, start, end))
    return words


_TIER = re.compile(r'name\s*=\s*"([^"]*)"(.*?)(?=item\s*\[\d+\]|\Z)', re.S)
_INTERVAL = re.compile(r'xmin\s*=\s*([\d.]+)\s*xmax\s*=\s*([\d.]+)\s*text\s*=\s*"((?:[^"]|"")*)"')


def read_textgrid(content: str) -> list[Timed]:
    """The words of a Praat TextGrid in its long form, as the Montreal Forced Aligner writes it.

    Raises:
      DataError: there is no tier of words.
    """
    for name, body in _TIER.findall(content):
        if name == "words" or name.endswith(" - words"):
            timed = ((text, float(a), float(b)) for a, b, text in _INTERVAL.findall(body))
            return [word for word in timed if word[0] and not word[0].startswith("<")]
    raise DataError("the TextGrid has no tier named words; ask for --output_format long_textgrid")


def match(words: Sequence[str], timed: Sequence[Timed]) -> Times:
    """Times of `words` by their longest common runs with the tool's; None for other words."""
    ours = [re.sub(r"[^a-z']", "", word.lower()) for word in words]
    theirs = [re.sub(r"[^a-z']", "", word.lower()) for word, _, _ in timed]
    times: Times = [None] * len(words)
    for mine, their, size in SequenceMatcher(
        None, ours, theirs, autojunk=False
    ).get_matching_blocks():
        for i in range(size):
            times[mine + i] = timed[their + i][1:]
    return times
