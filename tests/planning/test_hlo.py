# ruff: noqa: E501
"""Reading compiled programs: recorded lines of TPU programs, and counts done by hand."""

import itertools

import numpy as np
import pytest

from jukejax.planning import hlo, hlo_counts, hlo_groups

# A loop of 7 trips with: a fused matrix product; a reduce-scatter as TPU programs write it; one
# asynchronous all-gather cloned into two fusions; an all-reduce; a prefetch; and a custom call that
# the compiler does not cost.
MODULE = """HloModule jit_step, is_scheduled=true, entry_computation_layout={()->()}

%product (param_0: bf16[8,16], param_1: bf16[16,32]) -> bf16[8,32] {
  %param_0 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = bf16[16,32]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %convolution.1 = bf16[8,32]{1,0:T(8,128)(2,1)} convolution(%param_0, %param_1), dim_labels=bf_io->bf
}

%all-reduce-scatter.1 (input: bf16[16,32]) -> bf16[4,32] {
  %input = bf16[16,32]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.9 = bf16[16,32]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
  %zero = s32[] constant(0)
  ROOT %dynamic-slice.1 = bf16[4,32]{1,0:T(8,128)(2,1)} dynamic-slice(%all-reduce.9, %zero, %zero), dynamic_slice_sizes={4,32}
}

%gather_start (param_0: f32[4,32]) -> f32[16,32] {
  %param_0 = f32[4,32]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.1 = f32[16,32]{1,0:T(8,128)} all-gather(%param_0), channel_id=5, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}, metadata={op_name="jit(step)/gather"}
}

%gather_clone (param_0: f32[4,32]) -> f32[16,32] {
  %param_0 = f32[4,32]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.2 = f32[16,32]{1,0:T(8,128)} all-gather(%param_0), channel_id=5, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}, metadata={op_name="jit(step)/gather"}
}

%body (state: (s32[], bf16[8,16], bf16[16,32], f32[4,32])) -> (s32[], bf16[8,16], bf16[16,32], f32[4,32]) {
  %state = (s32[]{:T(128)}, bf16[8,16]{1,0:T(8,128)(2,1)}, bf16[16,32]{1,0:T(8,128)(2,1)}, /*index=3*/f32[4,32]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = bf16[8,16]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %w = bf16[16,32]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=2
  %g = f32[4,32]{1,0:T(8,128)} get-tuple-element(%state), index=3
  %copy-start.1 = (bf16[16,32]{1,0:T(8,128)(2,1)S(1)}, bf16[16,32]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%w)
  %copy-done.1 = bf16[16,32]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start.1)
  %fusion.1 = bf16[8,32]{1,0:T(8,128)(2,1)} fusion(%x, %copy-done.1), kind=kOutput, calls=%product, metadata={op_name="jit(step)/dot_general"}, backend_config={"window_config":{"estimated_cycles":"500"}}
  %fusion.2 = f32[16,32]{1,0:T(8,128)} fusion(%g), kind=kCustom, calls=%gather_start
  %fusion.3 = f32[16,32]{1,0:T(8,128)} fusion(%g), kind=kCustom, calls=%gather_clone
  %fusion.4 = bf16[4,32]{1,0:T(8,128)(2,1)} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.1
  %kernel = f32[4,32]{1,0:T(8,128)} custom-call(%g), custom_call_target="tpu_custom_call", backend_config={"estimated_cycles":"9223372036854775807"}
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[8,16]{1,0:T(8,128)(2,1)}, bf16[16,32]{1,0:T(8,128)(2,1)}, f32[4,32]{1,0:T(8,128)}) tuple(%i, %x, %w, %kernel)
}

%condition (state: (s32[], bf16[8,16], bf16[16,32], f32[4,32])) -> pred[] {
  %state = (s32[]{:T(128)}, bf16[8,16]{1,0}, bf16[16,32]{1,0}, f32[4,32]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(7)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (start: (s32[], bf16[8,16], bf16[16,32], f32[4,32])) -> f32[4,32] {
  %start = (s32[]{:T(128)}, bf16[8,16]{1,0}, bf16[16,32]{1,0}, f32[4,32]{1,0}) parameter(0)
  %while.1 = (s32[]{:T(128)}, bf16[8,16]{1,0}, bf16[16,32]{1,0}, f32[4,32]{1,0}) while(%start), condition=%condition, body=%body
  %g = f32[4,32]{1,0:T(8,128)} get-tuple-element(%while.1), index=3
  ROOT %all-reduce.1 = f32[4,32]{1,0:T(8,128)} all-reduce(%g), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum
}
"""


def test_a_loop_is_counted_as_often_as_it_runs():
    total, trip = hlo_counts.count(MODULE, 8)
    assert trip is None
    assert total.flops == 7 * 2 * 8 * 16 * 32
    assert total.cycles == 7 * 500
    assert total.operations == {"matrix products": 7 * 500}


def test_collectives_are_counted_once_each_trip_with_the_bytes_they_send():
    total, _ = hlo_counts.count(MODULE, 8)
    found = {(c.kind, c.source): (c.times, c.bytes) for c in total.collectives.values()}
    assert found == {
        ("all-gather", "jit(step)/gather"): (7, 7 * 4 * 32 * 4 * 3),  # to three others
        ("reduce-scatter", ""): (7, 7 * 16 * 32 * 2 * 3 // 4),
        ("all-reduce", ""): (1, 2 * 4 * 32 * 4 * 7 // 8),
    }


def test_collectives_of_a_shard_map_are_distinguished_though_jax_numbers_all_of_them_1():
    # two more like the first
    line = next(x for x in GPU.splitlines() if "all-reduce-start" in x)
    more = "".join(f"{line.replace('%start', f'%more.{i}')}\n" for i in range(2))
    total, _ = hlo_counts.count(GPU.replace(line, f"{more}{line}"), 8)
    assert [c.bytes for c in total.collectives.values()] == [2 * 64 * 48 * 2 * 3 // 4] * 3


def test_bytes_are_those_in_hbm_with_the_padding_of_tiles():
    total, _ = hlo_counts.count(MODULE, 8)
    tile = 8 * 128
    prefetch = 2 * tile * 2  # 16 x 32 in two tiles of bfloat16; the copy itself is on the chip
    product = tile * 2 + tile * 2  # reads x, writes the product; weights are on the chip
    gathers = 2 * (tile * 4 + 2 * tile * 4)
    kernel = 2 * tile * 4
    assert total.hbm_bytes == 7 * (prefetch + product + gathers + kernel)
    assert (0, 7 * kernel) in [(flops, moved) for _, flops, moved in total.uncosted]


def test_a_loop_of_unknown_length_is_counted_by_itself():
    text = MODULE.replace("constant(7)", "get-tuple-element(%state), index=0")
    total, trip = hlo_counts.count(text, 8)
    assert trip is not None
    assert trip.flops == 2 * 8 * 16 * 32
    assert total.flops == 0
    assert [c.kind for c in total.collectives.values()] == ["all-reduce"]


def test_trips_noted_in_the_text_count():
    noted = MODULE.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    )
    assert hlo_counts.count(noted, 8)[0].flops == 3 * 2 * 8 * 16 * 32


def test_text_that_is_no_module():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo_counts.count("hello", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}, x", [(0, 1, 2), (3, 4, 5)]),
        ("replica_groups=[2,3]<=[6], x", [(0, 1, 2), (3, 4, 5)]),
        ("replica_groups=[3,2]<=[2,3]T(1,0), x", [(0, 3), (1, 4), (2, 5)]),
        ("replica_groups=mesh['a'=2,'b'=3] {'b'}, x", [(0, 1, 2), (3, 4, 5)]),
        ("replica_groups=mesh['a'=2,'b'=3] {'a'}, x", [(0, 3), (1, 4), (2, 5)]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}, x", [(0, 1, 2, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b','a'}, x", [(0, 2, 1, 3)]),
        (
            "replica_groups=mesh['a'=3,'b'=2], device_ids=([2,3]T(1,0)) {'b'}, x",
            [(0, 3), (1, 4), (2, 5)],
        ),
        ("channel_id=1, source_target_pairs={{0,1},{5,0}}, x", [(0, 1), (5, 0)]),
        ("replica_groups={}, x", [(0, 1, 2, 3)]),
    ],
)
def test_groups(text, expected):
    assert hlo_groups.groups(text, 4) == expected


@pytest.mark.parametrize(
    ("kind", "text", "sent", "far"),
    [
        # 2 hosts of 4: an all-gather's device sends its 10 bytes to 7 others, once to the far host
        ("all-gather", "replica_groups={}", 70, 10),
        ("all-gather", "replica_groups={{0,1,2,3},{4,5,6,7}}", 30, 0),
        ("all-gather", "replica_groups={{0,4},{1,5},{2,6},{3,7}}", 10, 10),
        # of 80 bytes that a host has summed the far host wants half, by 4 devices
        ("reduce-scatter", "replica_groups={}", 70, 10),
        ("all-reduce", "replica_groups={}", 140, 20),
        ("all-to-all", "replica_groups={}", 70, 40),
        ("collective-permute", "source_target_pairs={{0,1},{1,0}}", 10, 0),
        ("collective-permute", "source_target_pairs={{0,1},{1,4}}", 10, 10),
    ],
)
def test_what_leaves_a_host(kind, text, sent, far):
    assert hlo_counts.between_hosts(kind, sent, text, 8, 4) == far


# what XLA's GPU compiler writes (shortened)
GPU = """HloModule jit_step, is_scheduled=true

%inner (p: bf16[64,16]) -> bf16[64,16] {
  %p = bf16[64,16]{1,0} parameter(0)
  ROOT %n = bf16[64,16]{1,0} negate(%p)
}

ENTRY %main (x: bf16[64,16], w: bf16[16,48]) -> bf16[64,48] {
  %x = bf16[64,16]{1,0} parameter(0)
  %w = bf16[16,48]{1,0} parameter(1)
  %loop_fusion = bf16[64,16]{1,0} fusion(%x), kind=kLoop, calls=%inner, metadata={op_name="a/neg"}
  %matmul = (bf16[64,48]{1,0}, s8[4194304]{0}) custom-call(%loop_fusion, %w), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]}}}
  %product = bf16[64,48]{1,0} get-tuple-element(%matmul), index=0
  %start = bf16[64,48]{1,0} all-reduce-start(%product), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%inner
  ROOT %done = bf16[64,48]{1,0} all-reduce-done(%start)
}
"""


def test_a_program_of_gpus():
    total, _ = hlo_counts.count(GPU, 8, host=4)
    assert total.flops == 2 * 64 * 16 * 48
    fused, product = 2 * 64 * 16 * 2, 2 * (64 * 16 + 16 * 48 + 64 * 48)  # no workspace
    assert total.hbm_bytes == fused + product
    assert total.cycles == 0
    assert total.uncosted == [("neg", 0, fused), ("matrix products", total.flops, product)]
    (found,) = total.collectives.values()  # {0, 2, 4, 6}: two devices of each host
    assert (found.kind, found.bytes) == ("all-reduce", 2 * 64 * 48 * 2 * 3 // 4)
    assert found.network == found.bytes // 3
    assert hlo_counts.count(GPU, 8)[0].collectives.popitem()[1].network == 0


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        ("1,0", 75 * 200 * 4),
        ("1,0:T(8,128)", 80 * 256 * 4),
        ("0,1:T(8,128)", 128 * 200 * 4),
        ("1,0:T(8,128)S(1)", 80 * 256 * 4),
    ],
)
def test_padding(layout, size):
    array = hlo.Array("f32", (75, 200), layout)
    assert array.bytes == size
    assert array.size == 75 * 200 * 4
    assert array.in_hbm == ("S(" not in layout)


SLICES = """HloModule m

%inner (param_0: f32[24,8,128], param_1: s32[], param_2: f32[24,8,128]) -> f32[24,8,128] {
  %param_0 = f32[24,8,128]{2,1,0:T(8,128)} parameter(0)
  %param_1 = s32[] parameter(1)
  %param_2 = f32[24,8,128]{2,1,0:T(8,128)} parameter(2)
  %bitcast.1 = f32[24,8,128]{2,1,0:T(8,128)} bitcast(%param_0)
  %piece = f32[1,8,128]{2,1,0:T(8,128)} dynamic-slice(%bitcast.1, %param_1, %param_1, %param_1), dynamic_slice_sizes={1,8,128}
  ROOT %write = f32[24,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%param_2, %piece, %param_1, %param_1, %param_1)
}

ENTRY %main (a: f32[24,8,128], i: s32[], b: f32[24,8,128]) -> f32[24,8,128] {
  %a = f32[24,8,128]{2,1,0:T(8,128)} parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  %b = f32[24,8,128]{2,1,0:T(8,128)} parameter(2)
  ROOT %fusion = f32[24,8,128]{2,1,0:T(8,128)} fusion(%a, %i, %b), kind=kLoop, calls=%inner
}
"""


def test_slices_of_stacked_arrays_count_as_what_they_touch():
    # one layer's piece is read and one is written, not the stacks of 24
    assert hlo_counts.count(SLICES, 1)[0].hbm_bytes == 2 * 8 * 128 * 4


def test_slices_in_nested_fusions_count_as_what_they_touch():
    head, entry = SLICES.split("ENTRY")
    nested = """%outer (p: f32[24,8,128], q: s32[], r: f32[24,8,128]) -> f32[24,8,128] {
  %p = f32[24,8,128]{2,1,0:T(8,128)} parameter(0)
  %q = s32[] parameter(1)
  %r = f32[24,8,128]{2,1,0:T(8,128)} parameter(2)
  ROOT %in = f32[24,8,128]{2,1,0:T(8,128)} fusion(%p, %q, %r), kind=kLoop, calls=%inner
}

ENTRY"""
    text = head + nested + entry.replace("calls=%inner", "calls=%outer")
    assert hlo_counts.count(text, 1)[0].hbm_bytes == 2 * 8 * 128 * 4


BETWEEN = """HloModule m

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %after-all.1 = token[] after-all()
  %send.1 = (f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}, token[]) send(%a, %after-all.1), channel_id=9, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  %send-done.1 = token[] send-done(%send.1), channel_id=9
  %recv.1 = (f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}, token[]) recv(%after-all.1), channel_id=10
  ROOT %recv-done.1 = (f32[8,128]{1,0:T(8,128)}, token[]) recv-done(%recv.1), channel_id=10
}
"""


def test_what_goes_between_slices_is_counted_by_itself():
    (found,) = hlo_counts.count(BETWEEN, 8)[0].collectives.values()
    assert (found.kind, found.times, found.bytes) == ("between slices", 1, 8 * 128 * 4)


@pytest.mark.parametrize("n", [1, 5, 12])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("offset", [-7, -1, 0, 2])
def test_positions_that_a_tap_meets(n, stride, dilation, offset):
    inputs = set(dilation * np.arange(n))
    for outputs in (1, 4, 20):
        by_hand = sum(o * stride + offset in inputs for o in range(outputs))
        assert hlo_counts._hits(outputs, stride, offset, dilation, n) == by_hand


def test_flops_of_a_convolution_with_holes():
    # batch 2, length 6 with a hole after each, three taps two apart: 4 features to 5
    n, taps, low, high, holes, step = 6, 3, 2, 1, 2, 2
    length = (n - 1) * holes + 1
    outputs = length + low + high - (taps - 1) * step
    pairs = sum(
        0 <= o + t * step - low < length and (o + t * step - low) % holes == 0
        for o, t in itertools.product(range(outputs), range(taps))
    )
    text = f"""HloModule m

ENTRY %main (a: f32[2,{n},4], b: f32[{taps},4,5]) -> f32[2,{outputs},5] {{
  %a = f32[2,{n},4]{{2,1,0}} parameter(0)
  %b = f32[{taps},4,5]{{2,1,0}} parameter(1)
  ROOT %c = f32[2,{outputs},5]{{2,1,0}} convolution(%a, %b), window={{size={taps} pad={low}_{high} lhs_dilate={holes} rhs_dilate={step}}}, dim_labels=b0f_0io->b0f
}}
"""
    assert hlo_counts.count(text, 1)[0].flops == 2 * 2 * 4 * 5 * pairs


def test_a_slice_of_a_retiled_operand_reads_the_slice_alone():
    text = """HloModule m

%tiles (a: s8[24,8,128]) -> s8[24,8,128] {
  %a = s8[24,8,128]{2,1,0:T(32,128)(4,1)} parameter(0)
  ROOT %copy = s8[24,8,128]{2,1,0:T(8,128)(4,1)} copy(%a)
}

%fused (b: s8[24,8,128], i: s32[]) -> s8[1,8,128] {
  %b = s8[24,8,128]{2,1,0:T(32,128)(4,1)} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  %v = s8[24,8,128]{2,1,0:T(8,128)(4,1)} fusion(%b), kind=kLoop, ALIAS calls=%tiles
  ROOT %s = s8[1,8,128]{2,1,0:T(8,128)(4,1)} dynamic-slice(%v, %i, %z, %z)
}

ENTRY %main (b: s8[24,8,128], i: s32[]) -> s8[1,8,128] {
  %b = s8[24,8,128]{2,1,0:T(8,128)(4,1)} parameter(0)
  %i = s32[] parameter(1)
  ROOT %f = s8[1,8,128]{2,1,0:T(8,128)(4,1)} fusion(%b, %i), kind=kLoop, calls=%fused
}
"""
    alias = text.replace("ALIAS", "output_to_operand_aliasing={{}: (0, {})},")
    assert hlo_counts.count(alias, 1)[0].hbm_bytes == 2 * 1024 + 4  # and the index
    moved = text.replace("ALIAS ", "")
    assert hlo_counts.count(moved, 1)[0].hbm_bytes == 25 * 1024 + 4
