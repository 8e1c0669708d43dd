"""Plans as text: one plan for reading, and the kept ones as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from jukejax import costs
from jukejax.planning.plans import Plan
from jukejax.planning.topologies import CUDA

_ABOUT = """# Plans

Compiled ahead of time, without the chips; nothing here was run. \
`jukejax compile plans` regenerates this page and compiles only programs that \
changed. Peak: bytes on one device. 192 in 3: in three microbatches (`train.accumulate`). Step and \
MFU are bounds from the compiler's cycles, HBM and interconnect; a real step takes longer. For \
GPUs the compiler estimates no cycles: every operation is charged by the published peaks, which is \
a looser bound.

## Train steps
"""
_TRAIN = (
    "preset", "topology", "data x fsdp x tensor", "batch", "remat", "peak GiB", "fits",
    "peak GiB of evaluation", "step at least", "tokens/s a device at most", "MFU at most",
)  # fmt: skip
_DECODE = (
    "preset", "topology", "data x fsdp x tensor", "windows", "weights", "peak GiB", "fits",
    "must be read GB", "is read GB", "tokens/s at most",
)  # fmt: skip


def _gib(size: float) -> str:
    return f"{size / costs.GIB:.2f} GiB"


def _chips(plan: Plan) -> str:
    return (f"{plan['slices']} x " if plan["slices"] > 1 else "") + plan["topology"]


def _device_rate(plan: Plan) -> float:
    """Upper bound of tokens a second on one device, of a train step."""
    return plan["tokens_per_step"] / plan["step_s"] / plan["devices"]


# --- one plan -------------------------------------------------------------------------------------


def render(plan: Plan) -> str:
    """A plan for reading."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items())
    m, train = plan["memory"], plan["what"] == "train"
    verdict = "fits" if plan["fits"] else f"DOES NOT FIT: {_gib(m['short'])} are missing"
    lines = [
        f"{plan['preset']}, {plan['what']}, on {_chips(plan)} ({plan['devices']} devices: {mesh})",
        f"parameters          {plan['parameters']:,}",
        *(_train_work(plan) if train else _decode_work(plan)),
        f"memory a device     arguments {_gib(m['arguments'])} + temporaries "
        f"{_gib(m['temporaries'])}: peak {_gib(m['peak'])} of {_gib(m['chip'])}; {verdict}",
        *(_evaluation(plan["evaluation"], m["chip"]) if "evaluation" in plan else ()),
        *(f"  would help: {line}" for line in plan.get("advice", [])),
    ]
    if not plan["fits"]:
        return "\n".join(lines)
    unit = "step" if train else "token"
    for kind, t in plan["collectives"].items():
        lines.append(f"{kind:20}{t['count']:,} a {unit}, {t['bytes'] / 1e9:.3f} GB sent a device")
    for c in plan.get("heaviest_collectives", []):
        sent = f"{c['bytes'] / 1e9:8.3f} GB in {c['times']} x {c['kind']}"
        lines.append(f"  {sent}: ...{c['of'][-60:]}")
    shares = ", ".join(f"{k} {v:.1%}" for k, v in plan["operations"].items() if v >= 0.005)
    bounds = ", ".join(f"{k} {v:.4g} s" for k, v in plan["bounds_s"].items())
    source = "charges by peaks" if CUDA in plan["versions"] else "compiler's cycles"
    lines += [f"{source:20}{shares}", f"bounds a {unit:11}{bounds}"]
    return "\n".join([*lines, *(_train_bound(plan) if train else _decode_bound(plan))])


def _evaluation(size: Plan, chip: int) -> list[str]:
    verdict = "fits" if size["fits"] else "DOES NOT FIT: --train.accumulate cuts its batch"
    temporaries, peak = _gib(size["temporaries"]), _gib(size["peak"])
    return [
        f"evaluation          temporaries {temporaries}: peak {peak} of {_gib(chip)}; {verdict}"
    ]


def _train_work(plan: Plan) -> list[str]:
    parts = f", in {plan['accumulate']} microbatches" if "accumulate" in plan else ""
    return [
        f"global batch        {plan['batch']:,} examples, {plan['tokens_per_step']:,} tokens"
        f"{parts}",
        f"model FLOPs         {plan['flops_per_token']:.4g} a token, "
        f"{plan['flops_per_step']:.4g} a step",
    ]


def _decode_work(plan: Plan) -> list[str]:
    return [
        f"windows             {plan['windows']}, weights {plan['weights']}, "
        f"caches {_gib(plan['cache_bytes'])} in all",
        f"must be read        {plan['read_bytes_per_token'] / 1e9:.3f} GB a token and device: "
        f"at most {plan['tokens_per_s_if_read_once']:,.1f} tokens/s",
    ]


def _train_bound(plan: Plan) -> list[str]:
    return [
        f"not faster than     {plan['step_s']:.4g} s a step, {_device_rate(plan):,.0f} tokens/s a "
        f"device: MFU of at most {plan['mfu_ceiling']:.1%}"
    ]


def _decode_bound(plan: Plan) -> list[str]:
    return [
        f"HBM traffic         {plan['hbm_bytes'] / 1e9:.3f} GB a token and device, "
        f"{plan['hbm_ratio']:.3f} of what must be read; {plan['hbm_bytes_per_call'] / 1e9:.3f} "
        "GB a call in addition",
        f"not faster than     {plan['tokens_per_s_ceiling']:,.1f} tokens/s",
    ]


# --- the page -------------------------------------------------------------------------------------


def markdown(plans: Sequence[Plan]) -> str:
    """A table of train steps and one of decoding loops."""
    train = [_train_row(plan) for plan in plans if plan["what"] == "train"]
    decode = [_decode_row(plan) for plan in plans if plan["what"] == "decode"]
    lines = [*_table(_TRAIN, train), "", "## Decoding, one token of every window", ""]
    return "\n".join([_ABOUT, *lines, *_table(_DECODE, decode)]) + "\n"


def _table(header: Sequence[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def _row(plan: Plan, work: tuple[str, str]) -> list[str]:
    """The columns that both tables have."""
    mesh, m = plan["mesh"], plan["memory"]
    fits = "yes" if plan["fits"] else f"no, {_gib(m['short'])} lacking"
    peak = f"{m['peak'] / costs.GIB:.2f} of {m['chip'] / costs.GIB:.0f}"
    sizes = f"{mesh['data']} x {mesh['fsdp']} x {mesh['tensor']}"
    return [plan["preset"], _chips(plan), sizes, *work, peak, fits]


def _train_row(plan: Plan) -> list[str]:
    parts = f" in {plan['accumulate']}" if "accumulate" in plan else ""
    row = _row(plan, (f"{plan['batch']}{parts}", plan["remat"] or ""))
    peak = f"{plan['evaluation']['peak'] / costs.GIB:.2f}" if "evaluation" in plan else ""
    if not plan["fits"]:
        return [*row, peak, "", "", ""]
    rate, share = f"{_device_rate(plan):,.0f}", f"{plan['mfu_ceiling']:.1%}"
    return [*row, peak, f"{plan['step_s']:.3g} s", rate, share]


def _decode_row(plan: Plan) -> list[str]:
    row = _row(plan, (str(plan["windows"]), plan["weights"]))
    row.append(f"{plan['read_bytes_per_token'] / 1e9:.3g}")
    if not plan["fits"]:
        return [*row, "", ""]
    return [*row, f"{plan['hbm_bytes'] / 1e9:.3g}", f"{plan['tokens_per_s_ceiling']:,.0f}"]
