"""Readers of compilers' output, on a program of a few lines: no compiler is needed."""

import pytest
from accelerators import hlo, plans, targets
from accelerators.compiling import iteration
from compiled import table

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


def test_an_update_in_place_moves_the_update_alone():
    """8 floats and the place are read, 8 floats written into the table and 8 beside it."""
    module = hlo.parse(UPDATE)
    assert plans.traffic(module.instructions["fusion"], module) == 4 * (8 + 1 + 8 + 8)


def test_a_loop_of_known_length_has_no_question(module):
    """4 kernels and no wait; of the conditional the branch of one kernel, and a wait for which it is."""
    plan = plans.parse(PLAN, NAMES)
    assert plans.cost(plan[1:], module)[:3] == (4 + 1, 4 + 1, 1)
    assert plans.cost(plan[1:2], module, buffered=True)[:3] == (4, 0, 0)


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
