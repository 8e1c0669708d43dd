"""Damage: what disks, copies, editors and strangers do to a file."""

import copy
import json

WORDS = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"}",
    b"[",
    b'"',
    b"-1",
    b"1e999",
    b"[1:",
)
VALUES = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2**31,
        2**63,
        -(2**70),
        10**400,
        0.5,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *("", " ", "\0", "\ud800", "../..", "/", "a" * 5000, "ünïcode", "<script>", "train", "0", "-1"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], ["a"], {"0": "a"}, [[["a"]]], "\u0301" * 3000),
)
EXTREMES = (b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"\xff" * 8)


def damaged(data, rng):
    """Bytes with one to three changes of any kind."""
    data = bytearray(data)
    for _ in range(min(rng.geometric(0.7), 3)):
        kind = rng.choice(len(_KINDS), p=_LIKELY)
        place = int(rng.integers(len(data) + 1)) if rng.random() < 0.6 else int(rng.integers(80))
        _KINDS[kind](data, min(place, len(data)), rng)
    return bytes(data)


def flipped(data, rng):
    """Bytes with one bit turned."""
    data = bytearray(data)
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _flip(data, place, rng):
    if data:
        data[place % len(data)] ^= 1 << int(rng.integers(8))


def _overwrite(data, place, rng):
    new = rng.bytes(int(rng.integers(1, 40)))
    data[place : place + len(new)] = new


def _extreme(data, place, rng):
    new = EXTREMES[rng.integers(len(EXTREMES))]
    data[place : place + len(new)] = new


def _insert(data, place, rng):
    data[place:place] = WORDS[rng.integers(len(WORDS))] if rng.random() < 0.7 else rng.bytes(9)


def _delete(data, place, rng):
    del data[place : place + int(rng.integers(1, 1 + max(1, len(data) // 4)))]


def _repeat(data, place, rng):
    data[place:place] = data[place : place + int(rng.integers(1, 4000))]


def _zero(data, place, rng):
    size = min(int(rng.integers(1, 4000)), len(data) - place)
    data[place : place + size] = bytes(size)


def _cut(data, place, _rng):
    del data[place:]


def _append(data, _place, rng):
    data += rng.bytes(int(rng.integers(1, 3000)))


_KINDS = (_flip, _overwrite, _extreme, _insert, _delete, _repeat, _zero, _cut, _append)
_LIKELY = (0.28, 0.12, 0.12, 0.12, 0.1, 0.08, 0.06, 0.07, 0.05)


def changed(value, rng):
    """A value with one to three fields changed, removed, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(min(rng.geometric(0.7), 3)):
        value = _edit(value, rng)
    return value


def edited(value, rng):
    """JSON text of a value that is `changed`."""
    text = json.dumps(
        changed(value, rng)
    )  # NaN, Infinity and half a surrogate pair as an escape included
    return (text.replace("1e+308", "9" * 5000) if rng.random() < 0.1 else text).encode()


def _edit(value, rng):
    children = list(value) if isinstance(value, dict) else range(len(value or ())) if isinstance(
        value, list
    ) else ()  # fmt: skip
    if not children or rng.random() < 0.1:
        return _replaced(value, rng)
    key = children[rng.integers(len(children))]
    change = rng.random()
    if change < 0.55:
        value[key] = _edit(value[key], rng)
    elif change < 0.75:
        del value[key]
    elif isinstance(value, list):
        value.insert(key, copy.deepcopy(value[key]))
    elif change < 0.85:
        value[f"{key}x"] = value.pop(key)
    else:
        value[str(VALUES[rng.integers(len(VALUES))])] = value[key]
    return value


def _replaced(value, rng):
    if rng.random() < 0.2:
        return [value] if rng.random() < 0.5 else str(value)
    if isinstance(value, int) and rng.random() < 0.4:
        return value + int(rng.integers(-3, 4)) * 10 ** int(rng.integers(0, 12))
    return copy.deepcopy(VALUES[rng.integers(len(VALUES))])


def any_json(value, rng):
    """As `edited`, or the text of the value with damaged bytes."""
    return edited(value, rng) if rng.random() < 0.75 else damaged(json.dumps(value).encode(), rng)


def any_lines(values, rng):
    """JSON lines of values, one of which is changed, or all of whose bytes are damaged.

    Returns the bytes, and the number of the changed line (None: any).
    """
    lines = [json.dumps(value).encode() for value in values]
    if rng.random() < 0.3:
        return damaged(b"\n".join(lines) + b"\n", rng), None
    row = int(rng.integers(len(lines)))
    lines[row] = any_json(values[row], rng).replace(b"\n", b" ")
    return b"\n".join(lines) + b"\n", row
