"""Word times for the songs of a manifest: each song in its own process, results in a journal.

A song that cannot be aligned gets no words, so the loader takes its lyrics as linear in time, and
the reason. The journal, in the folder of the output, lets an interrupted run continue.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import json
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from data_pipeline.align import external, judge, sphinx, text
from data_pipeline.align.voice import RATE, SEPARATORS, Sound, voice
from data_pipeline.manifest import Song, read_manifest, write_manifest
from jukejax import files
from jukejax.errors import DataError
from jukejax.text.transliterate import spoken
from jukejax.text.word_times import Word

ALIGNERS = ("pocketsphinx", *external.ALIGNERS)
LINEAR = "linear"
_ENOUGH = 0.5  # share of the words that an external aligner must place


@dataclasses.dataclass(frozen=True)
class Options:
    """How songs are aligned; an empty command is the tool's usual one."""

    separator: str = "stem"
    aligner: str = "pocketsphinx"
    separator_command: str = ""
    aligner_command: str = ""
    time_limit: float = 1800.0
    """Seconds that a song may take."""

    def check(self) -> None:
        """DataError for an unknown choice or a tool that is not installed."""
        choices = (("separator", SEPARATORS), ("aligner", ALIGNERS))
        for name, known in choices:
            chosen = getattr(self, name)
            if chosen not in known:
                raise DataError(f"--{name} is {chosen!r}; choose from {', '.join(known)}")
            if chosen in external.COMMANDS:
                external.program(chosen, getattr(self, f"{name}_command"))
        for package in ("pocketsphinx", "espeakng_loader", "pebble"):
            if importlib.util.find_spec(package) is None:
                raise DataError(f"{package} is missing: pip install 'jukejax[align]'")
        if not self.time_limit > 0:
            raise DataError(f"--time-limit is {self.time_limit}; give more than 0 seconds")


@dataclasses.dataclass(frozen=True)
class Aligned:
    """Word times of a song, and how they were made in `alignment`; if none, with the reason."""

    words: tuple[Word, ...]
    alignment: dict[str, Any]


def fallback(reason: str) -> Aligned:
    """No word times: lyrics are taken as linear in time."""
    return Aligned((), {"method": LINEAR, "reason": reason})


def align_song(song: Song, options: Options) -> Aligned:
    """Aligns one song; DataError if its sound cannot be read or a tool fails."""
    printed = text.lyric_words(song.lyrics)
    plain = [spoken(word) for word in printed]
    if song.lines:
        return _within_lines(song, options)
    if not any(plain):
        return fallback("no words" if not printed else "no words in Latin letters")
    sound, source = voice(song, options.separator, options.separator_command)
    if options.aligner == "pocketsphinx":
        times, alignment = _with_sphinx(sound, plain)
    else:
        times, alignment = _with_tool(sound, plain, options)
    if times is None:
        return Aligned((), {"method": LINEAR, "voice": source, **alignment})
    interpolated = [word for word, time in zip(printed, times, strict=True) if time is None]
    words = text.fill_gaps(printed, times, len(sound) / RATE)
    alignment = {"method": options.aligner, "voice": source, **alignment}
    return Aligned(words, alignment | ({"interpolated": interpolated} if interpolated else {}))


def _within_lines(song: Song, options: Options) -> Aligned:
    """Aligns the words of each line inside the line's given times.

    Words of a line that cannot be aligned share its time by their letters.
    """
    sound, source = voice(song, options.separator, options.separator_command)
    seconds = len(sound) / RATE
    starts = [start for _, start in song.lines]
    if starts[-1] >= seconds:
        return fallback(f"a line starts at {starts[-1]:g} s, but the song ends at {seconds:.1f} s")
    spans = list(zip(starts, [*starts[1:], seconds], strict=True))
    lines = [line.split() for line, _ in song.lines]
    plain = [[spoken(word) for word in line] for line in lines]
    every = [word for line in plain for word in line]
    if options.aligner == "pocketsphinx" or not any(every):
        sphinx.begin_song()
        placed = [_line_times(sound, *span, line) for span, line in zip(spans, plain, strict=True)]
    else:
        times = iter(_with_tool(sound, every, options)[0] or [None] * len(every))
        placed = [[next(times) for _ in line] for line in plain]
    words: list[Word] = []
    aligned = 0
    for (start, end), line, of_line in zip(spans, lines, placed, strict=True):
        inside = [x if x and start <= x[0] <= x[1] <= end else None for x in of_line]
        aligned += sum(x is not None for x in inside)
        words += text.fill_line(line, inside, start, end)
    alignment = {"method": options.aligner if aligned else "lines", "voice": source}
    return Aligned(tuple(words), alignment | {"lines": sum(map(bool, lines)), "aligned": aligned})


def _line_times(sound: Sound, start: float, end: float, plain: Sequence[str]) -> external.Times:
    """Times in the song of the words of a line, by pocketsphinx."""
    known = sphinx.known(plain) if any(plain) else [False] * len(plain)
    words = [word for word, is_known in zip(plain, known, strict=True) if is_known]
    part = sound[round(start * RATE) : round(end * RATE)]
    path = sphinx.best_path(sphinx.pcm(part), words) if words and len(part) else None
    if path is None:
        return [None] * len(plain)
    # the decoder's last frame may be longer than the part
    times = ((start + a, min(start + b, end)) for a, b in path.times)
    return [next(times) if is_known else None for is_known in known]


def _with_sphinx(
    sound: Sound, plain: Sequence[str]
) -> tuple[external.Times | None, dict[str, Any]]:
    placed = judge.place_words(sound, plain)
    if isinstance(placed, str):
        return None, {"reason": placed}
    scored = placed.scores
    scores = {"score": round(scored.score, 4), "adherence": round(scored.adherence, 4)}
    if not scored.aligned:
        return None, {"reason": "shuffled lyrics fit nearly as well", **scores}
    return list(placed.times), scores


def _with_tool(
    sound: Sound, plain: Sequence[str], options: Options
) -> tuple[external.Times | None, dict[str, Any]]:
    words = [word for word in plain if word]
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "voice.wav"
        soundfile.write(wav, sound, RATE, subtype="PCM_16")
        work = Path(folder) / "work"
        work.mkdir()
        placed = external.align(options.aligner, wav, words, work, options.aligner_command)
    share = sum(time is not None for time in placed) / len(placed)
    if share < _ENOUGH:
        return None, {"reason": f"{options.aligner} placed {share:.0%} of the words"}
    times = iter(placed)
    return [next(times) if word else None for word in plain], {}


def align_manifest(
    manifest: Path,
    out: Path,
    options: Options,
    *,
    workers: int = 1,
    replace: bool = False,
    show_progress: bool = True,
) -> list[Song]:
    """Writes `manifest` with word times to `out` and returns its songs.

    Songs that have words keep them, unless `replace`. Finished songs are recorded in `out.journal`
    and not aligned again while sound, lyrics and options stay the same.

    Raises:
      DataError: the manifest cannot be read, a tool is missing, an option is out of range.
    """
    options.check()
    if workers < 1:
        raise DataError(f"--workers is {workers}; give 1 or more")
    if out.resolve() == manifest.resolve():
        raise DataError(f"--out is the manifest {manifest} itself; give another file")
    listed = read_manifest(manifest)
    bad = [str(problem) for problem in listed.problems if problem.skipped]
    if bad:
        raise DataError("correct these lines of the manifest first:\n  " + "\n  ".join(bad[:20]))
    out.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(out.with_name(out.name + ".journal"))
    sung = [song for song in listed.songs if song.lyrics and (replace or not song.words)]
    keys = {song.id: song_key(song, options) for song in sung}
    pending = [song for song in sung if keys[song.id] not in journal.done]
    with tqdm(
        total=len(sung),
        initial=len(sung) - len(pending),
        unit="song",
        desc="align",
        disable=not show_progress,
    ) as bar:
        for song, aligned in _isolated(pending, options, workers):
            journal.add(keys[song.id], aligned)
            bar.update()
    songs = []
    for song in listed.songs:
        if song.id in keys:
            aligned = journal.done[keys[song.id]]
            song = dataclasses.replace(song, words=aligned.words, alignment=aligned.alignment)
        songs.append(song)
    write_manifest(songs, out)
    return songs


def song_key(song: Song, options: Options) -> str:
    """A digest of all that a song's alignment depends on."""
    paths = [song.audio, *(path for name, path in song.stems if name == "vocals")]
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    how = [dataclasses.asdict(options), judge.SHUFFLES, judge.LEAST_ADHERENCE, *song.lines]
    return hashlib.sha256(json.dumps([state, song.lyrics, how]).encode()).hexdigest()[:32]


class Journal:
    """Finished songs by key, a JSON line each; a last line that was cut short is dropped."""

    def __init__(self, path: Path) -> None:
        self.path, self.done = path, {}
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = content.split("\n")
        for line in lines[:-1]:
            row = json.loads(line)
            words = tuple((text, start, end) for text, start, end in row["words"])
            self.done[row["key"]] = Aligned(words, row["alignment"])
        if lines[-1]:
            files.write_text(path, content[: -len(lines[-1])])

    def add(self, key: str, aligned: Aligned) -> None:
        """Records a finished song, in memory and on disk."""
        row = {"key": key, "words": aligned.words, "alignment": aligned.alignment}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.done[key] = aligned


def _isolated(
    songs: Sequence[Song], options: Options, workers: int
) -> Iterator[tuple[Song, Aligned]]:
    """Aligns songs in other processes; one that dies or takes too long loses its song alone."""
    import pebble

    context = multiprocessing.get_context("spawn")
    running: dict[Future[Aligned], Song] = {}
    waiting = iter(songs)
    with pebble.ProcessPool(workers, context=context) as pool:
        try:
            while True:
                while len(running) < 2 * workers and (song := next(waiting, None)) is not None:
                    limit = options.time_limit
                    running[pool.schedule(align_song, [song, options], timeout=limit)] = song
                if not running:
                    return
                done, _ = concurrent.futures.wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), _outcome(future, options)
        finally:
            pool.stop()


def _outcome(future: Future[Aligned], options: Options) -> Aligned:
    import pebble

    try:
        return future.result()
    except DataError as error:
        return fallback(str(error))
    except TimeoutError:
        return fallback(f"not done after {options.time_limit:g} s")
    except pebble.ProcessExpired:
        return fallback("the aligner crashed")
