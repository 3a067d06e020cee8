"""Readers of compilers' output, on a program of a few lines: no compiler is needed."""

import pytest
from accelerators import bundles, hlo, plans, targets
from accelerators.compiling import iteration, topk
from accelerators.programs import layouts
from accelerators.readings import readings
from compiled import by_layout, by_reading, finished, in_topk, table

MODULE = """
HloModule example

FunctionNames
1 "body_of_a_round"
2 "Round.local_steps"
3 "narrowed"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1}
2 {file_name_id=1 function_name_id=2 line=2}
3 {file_name_id=1 function_name_id=3 line=3}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}

%sliced (parameter.1: f32[100,8], parameter.2: s32[]) -> f32[1,8] {
  %parameter.1 = f32[100,8]{1,0} parameter(0)
  %parameter.2 = s32[] parameter(1)
  ROOT %slice = f32[1,8]{1,0} dynamic-slice(%parameter.1, %parameter.2, %parameter.2), dynamic_slice_sizes={1,8}
}

%pass_condition (p: (s32[])) -> pred[] {
  ROOT %ask = pred[] custom-call(%p), custom_call_target="ask", backend_config={"estimated_cycles":"1"}
}

%pass (p: (s32[])) -> (s32[]) {
  ROOT %count = (s32[]{:T(128)}, /*index=1*/f32[10,3]{1,0:T(8,128)}) fusion(%p), config={"estimated_cycles":"10"}
}

%step_condition (p: (s32[])) -> pred[] {
  ROOT %done = pred[]{:T(128)} fusion(%p), backend_config={"estimated_cycles":"2"}
}

%step (p: (s32[])) -> (s32[]) {
  %data = f32[100,8]{1,0} get-tuple-element(%p), index=0
  %place = s32[] get-tuple-element(%p), index=1
  %gradient = f32[1,8]{1,0} fusion(%data, %place), calls=%sliced, backend_config={"estimated_cycles":"100"}
  %magnitudes = (s32[]) while(%p), condition=%pass_condition, body=%pass, metadata={stack_frame_id=3}
  %ties = (s32[]) while(%p), condition=%pass_condition, body=%pass, metadata={stack_frame_id=3}
  ROOT %sum = f32[8]{0} all-reduce-start(%gradient)
}

%count_condition (p: (s32[])) -> pred[] {
  %four = s32[] constant(4)
  %counter = s32[] get-tuple-element(%p), index=0
  ROOT %below = pred[] compare(%counter, %four), direction=LT
}

%asked (p: (s32[])) -> (s32[]) {
  ROOT %evaluation = s32[8]{0} sort(%p), dimensions={0}, backend_config={"estimated_cycles":"1000"}
}

%not_asked (p: (s32[])) -> (s32[]) {
  ROOT %nothing = s32[] constant(0)
}

ENTRY %main (p: (s32[])) -> (s32[]) {
  %steps = (s32[]) while(%p), condition=%step_condition, body=%step, metadata={stack_frame_id=2}
  %fixed = (s32[]) while(%p), condition=%pass_condition, body=%pass, backend_config={"known_trip_count":{"n":"4"}}
  %counted = (s32[]) while(%p), condition=%count_condition, body=%pass
  ROOT %maybe = (s32[]) conditional(%p), branch_computations={%asked, %not_asked}
}
"""
PLAN = """
001: kWhile [source | sink]
condition:
    002: kCustomKernel [source | sink] done
  body:
    000: kCommandBuffer [source | sink]
        003: kCustomKernel [source | sink] gradient
        004: kCopy [source | sink] kCopy
    005: kWhile [source | sink]
condition:
        006: kCustomKernel [source | sink] ask
      body:
        000: kCommandBuffer [source | sink]
            007: kCustomKernel [source | sink] count
            008: kDynamicSliceFusion [source | sink]
                009: kCopy [source | sink] kCopy
    010: kCustomKernel [source | sink] sum
011: kWhile [source | sink]
condition:
    012: kCustomKernel [source | sink] ask
  body:
    013: kCustomKernel [source | sink] count
014: kConditional [source | sink]
  false_branch:
    015: kCustomKernel [source | sink] evaluation
    016: kCustomKernel [source | sink] evaluation
  true_branch:
    017: kCopy [source | sink] kCopy
"""
UPDATE = """
%updated (parameter.1: f32[100,8], parameter.2: f32[8], parameter.3: s32[]) -> (f32[100,8], f32[8]) {
  %parameter.1 = f32[100,8]{1,0} parameter(0)
  %parameter.2 = f32[8]{0} parameter(1)
  %parameter.3 = s32[] parameter(2)
  %row = f32[1,8]{1,0} bitcast(%parameter.2)
  %twice = f32[8]{0} add(%parameter.2, %parameter.2)
  %update = f32[100,8]{1,0} dynamic-update-slice(%parameter.1, %row, %parameter.3, %parameter.3)
  ROOT %both = (f32[100,8]{1,0}, f32[8]{0}) tuple(%update, %twice)
}

ENTRY %main (table: f32[100,8], new: f32[8], place: s32[]) -> (f32[100,8], f32[8]) {
  %table = f32[100,8]{1,0} parameter(0)
  %new = f32[8]{0} parameter(1)
  %place = s32[] parameter(2)
  ROOT %fusion = (f32[100,8]{1,0}, f32[8]{0}) fusion(%table, %new, %place), kind=kLoop, calls=%updated
}
"""
KERNEL = """
HloModule kernel

FunctionNames
1 "Round.local_steps"
2 "topk_mask"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1}
2 {file_name_id=1 function_name_id=2 line=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%step_condition (p: (s32[])) -> pred[] {
  ROOT %done = pred[]{:T(128)} fusion(%p), backend_config={"estimated_cycles":"2"}
}

%step (p: (s32[])) -> (s32[]) {
  %gradient = f32[10,640]{1,0} fusion(%p), backend_config={"estimated_cycles":"100"}
  %masks = s8[10,640]{1,0:T(8,128)(4,1)S(1)} custom-call(%gradient), custom_call_target="tpu_custom_call"
  ROOT %kept = pred[10,640]{1,0} fusion(%masks), metadata={stack_frame_id=2}, backend_config={"estimated_cycles":"4"}
}

ENTRY %main (p: (s32[])) -> (s32[]) {
  ROOT %steps = (s32[]) while(%p), condition=%step_condition, body=%step, metadata={stack_frame_id=1}
}
"""
BUNDLES = """
LB: loop body
     0   :  { %s1 = smov 0 }
   0x1 LB: > { %v1 = vld [vmem:%s1] }
   0x2   : > { %v2 = vmov 0 }
   0x3 LB: >> { %v3 = vadd.s32 %v1, %v2 ;; %p1 = scmp.ge.s32.totalorder %s2, 15 /* loop exit test */ }
   0x4   :  {}
   0x5   : >> { %7 = sbr.rel (!%p1) target = $region3 }
   0x6   : > { %v4 = vmov 1 }
   0x7 LB: >> { %v5 = vmov 2 }
   0x8 LB: >> { %v6 = vmov 3 }
   0x9   : >> { %8 = sbr.rel (!%p2) target = $region4 }
   0xa PF: > { %p3 = scmp.ge.s32.totalorder %s3, 6 /* loop exit test */ }
   0xb   :  { %s9 = smov 1 }
"""
NAMES = {1: "steps", 2: "done", 3: "gradient", 5: "magnitudes", 6: "ask", 7: "count", 11: "fixed", 12: "ask"}


@pytest.fixture(scope="module")
def module():
    return hlo.parse(MODULE)


def test_loops_are_known_by_the_function_that_has_them(module):
    """An inner loop's functions include those around it; TopK's second search, of ties, takes no pass."""
    loop = module.instructions["ties"]
    assert module.functions(loop) == ["narrowed", "Round.local_steps", "body_of_a_round"]
    assert module.trips == {"magnitudes": 9, "ties": 0, "steps": 10, "fixed": 4, "counted": 4}


def test_cycles_of_a_step(module):
    """2 of its condition, 100 of the gradient, 9 passes of 10 and 10 questions, and one question about ties."""
    assert iteration("Round.local_steps", module, None) == {"cycles": 2 + 100 + 9 * 10 + 10 + 1}
    assert iteration("narrowed", module, None) == {"cycles": 10 + 1}
    assert iteration("no_such_function", module, None) is None


def test_a_conditional_counts_as_its_shorter_branch(module):
    """10 steps of 201 cycles, 11 questions of 2; 4 passes of 10, 5 questions of 1; 4 passes again; no evaluation."""
    once = 100 + 9 * 10 + 10 + 1
    assert module.executed(module.entry, lambda one: one.cycles) == 10 * once + 11 * 2 + (4 * 10 + 5) + 4 * 10
    assert module.executed(module.entry, hlo.collective) == 10


def test_facts(module):
    found = hlo.facts(module)
    assert (found["whiles"], found["sorts"], found["longest_sort"], found["float64"]) == (5, 1, 8, 0)
    assert found["custom_calls"] == {"ask": 1}


def test_padding_of_tiles(module):
    """10 x 3 in tiles of 8 x 128 is 16 x 128."""
    (row,) = hlo.padding(module)
    assert (row["bytes"], row["padded_bytes"]) == (4 * 10 * 3, 4 * 16 * 128)


def test_what_the_host_does(module):
    """A step: its condition; a command buffer of two kernels; 9 passes of two kernels, 10 questions; one more kernel.

    The host waits for the step's condition and for each question. Bytes: of the gradient a slice of 8 floats, the place
    and the result, 68; of a pass the result, 124; of a condition a byte.
    """
    plan = plans.parse(PLAN, NAMES)
    assert iteration("Round.local_steps", module, plan) == {
        "kernels": 1 + 2 + 9 * 2 + 10 + 1,
        "submissions": 1 + 1 + 9 + 10 + 1,
        "waits": 1 + 10,
        "bytes": 1 + 68 + 9 * 124 + 10,
    }


def test_bundles_of_a_kernel():
    """Of 12 bundles 2 are outside. A block: 4 of its own, bisection 15 times 3, ties 1 that do not run, a copy of 2."""
    blocks = bundles.parse(BUNDLES).inside[0]
    assert bundles.parse(BUNDLES).bundles == 2
    assert (blocks.bundles, blocks.trips) == (4, 6)
    assert [(loop.bundles, loop.trips) for loop in blocks.inside] == [(3, 15), (1, None), (2, None)]
    assert bundles.cycles(BUNDLES, 4) == 4 * (4 + 15 * 3 + 2)


def test_cycles_of_topk_are_its_kernel_and_what_is_around(monkeypatch):
    """A step is 102 cycles, 4 of them around TopK's kernel, and the kernel's 1,000."""
    monkeypatch.setattr(bundles, "kernel", lambda rows, entries: {(10, 640): 1_000}[rows, entries])
    module = hlo.parse(KERNEL)
    assert iteration("Round.local_steps", module, None) == {"cycles": 2 + 100 + 4 + 1_000}
    assert topk(module) == {"kernel": 1_000, "around": 4}


def test_an_update_in_place_moves_the_update_alone():
    """8 floats and the place are read, 8 floats written into the table and 8 beside it."""
    module = hlo.parse(UPDATE)
    assert plans.traffic(module.instructions["fusion"], module) == 4 * (8 + 1 + 8 + 8)


def test_a_loop_of_known_length_has_no_question(module):
    """4 kernels and no wait; of the conditional the branch of one kernel, and a wait for which it is."""
    plan = plans.parse(PLAN, NAMES)
    assert plans.cost(plan[1:], module)[:3] == (4 + 1, 4 + 1, 1)
    assert plans.cost(plan[1:2], module, buffered=True)[:3] == (4, 0, 0)


def test_microseconds_in_topk():
    """Before, 9 passes of 1,500 cycles in a step of 30,000; after, 2,400 in the kernel and 600 around it."""
    step = {"step": {"cycles": 30_000}}
    assert in_topk(step | {"topk_pass": {"cycles": 1_500}}) == "9 (45%)"
    assert in_topk(step | {"topk": {"kernel": 2_400, "around": 600}}) == "2 (10%)"
    assert in_topk(step | {"topk": {"kernel": 0, "around": 0}}) == "-"


def test_the_table_shows_what_changed():
    """What is equal in both records once, what differs with an arrow, and a program that failed by that word."""
    cycles = {"program": "digits", "platform": "tpu", "step": {"cycles": 3_000}, "topk_pass": None}
    memory = {"all_reduces_a_round": 1, "peak_memory_bytes": 2_000_000, "predicted_bytes": 1_000_000}
    before = cycles | memory | {"round": {"cycles": 30_000}}
    after = before | {"step": {"cycles": 1_500}}
    failed = {"program": "sweep", "platform": "tpu", "error": "out of memory"}
    text = table({"before": [before, failed], "after": [after]})
    assert "| digits | 2 → 1 | - | 20 | 1 | 2 | 1 |\n" in text
    assert f"| sweep |{' failed |' * 6}\n" in text


def test_a_sentence_where_packages_are_missing(monkeypatch):
    monkeypatch.setattr(targets, "_version", lambda name: None if name == "libtpu" else "1")
    assert targets.missing("tpu") == "compiling for tpu needs libtpu: pip install -e '.[accelerators]'"
    assert targets.missing("cuda") is None
    with pytest.raises(RuntimeError, match="needs libtpu"):
        targets.devices("tpu", 1)


def test_layouts_of_a_program():
    """The programs that differ in the clients computed at once, the fewest first; others share no such table."""
    assert layouts("femnist") == {
        1: "femnist_by_1",
        5: "femnist_by_5",
        10: "femnist_chunks",
        20: "femnist_by_20",
        25: "femnist_by_25",
        50: "femnist_by_50",
        None: "femnist",
    }
    assert layouts("lstm") == {None: "lstm"}


def test_a_round_by_layout():
    """A row a layout that was compiled, of the platforms that have it."""
    memory = {"peak_memory_bytes": 2_000_000, "predicted_bytes": 1_000_000}
    cost = {"kernels": 1_500, "submissions": 3, "waits": 1, "bytes": 4_500_000_000}
    found = [
        memory | {"program": "femnist_chunks", "platform": "tpu", "round": {"cycles": 3_000}},
        memory | {"program": "femnist", "platform": "tpu", "round": {"cycles": 6_000}},
        memory | {"program": "femnist", "platform": "cuda", "round": cost},
    ]
    text = by_layout(found, {"femnist": {10: "femnist_chunks", None: "femnist"}})
    assert "| femnist | 10 | 2 | 2 | 1 |\n| femnist | all | 4 | 2 | 1 |\n" in text
    assert "| femnist | all | 1,500 | 3 | 1 | 4.5 | 2 | 1 |\n" in text


READING = """
HloModule reading

%add (parameter.1: f32[], parameter.2: f32[]) -> f32[] {
  %parameter.1 = f32[] parameter(0)
  %parameter.2 = f32[] parameter(1)
  ROOT %plus = f32[] add(%parameter.1, %parameter.2)
}

ENTRY %main (x: f32[10,11164352]) -> f32[10] {
  %x = f32[10,11164352]{1,0} parameter(0)
  %same = f32[10,11164352]{1,0} bitcast(%x)
  %zero = f32[] constant(0)
  %sums = f32[10]{0} reduce(%same, %zero), dimensions={1}, to_apply=%add, backend_config={"estimated_cycles":"3000"}
  ROOT %twice = f32[10]{0} add(%sums, %sums), backend_config={"estimated_cycles":"10"}
}
"""


def test_what_reads_a_large_array():
    """The sum alone: it reads 10 x 11,164,352 floats and a zero, and writes 10; a bitcast reads nothing."""
    (one,) = readings(hlo.parse(READING))
    assert one == {"function": "", "bytes": 4 * (10 * 11_164_352 + 1 + 10), "cycles": 3_000}
    text = by_reading([{"program": "reading_sum", "platform": "tpu", "readings": [one, one | {"cycles": 6_000}]}])
    assert "| reading_sum | tpu | - | 2 | 446.6 | 2 to 4 |\n" in text


def test_a_second_call_goes_on():
    """What is there of the same code and options is not compiled again; what failed is."""
    first = {"program": "digits", "platform": "tpu", "source": "a", "options": {}}
    older, failed = first | {"platform": "cuda", "source": "b"}, first | {"program": "sweep", "error": "out of memory"}
    assert finished([first, older, failed], "a", {}) == {("digits", "tpu")}
    assert finished([first, older, failed], "a", {"flag": "1"}) == set()
