"""How many blocks to have."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.pilot.policy import Limits, LiveBlock, decide

LIMITS = Limits(max_blocks=2, workers_per_block=4, lead_s=10.0, useful_s=5.0)


def running(name, left=100.0, idle=False):
    return LiveBlock(name, True, left, idle)


def waiting(name):
    return LiveBlock(name, False, 100.0, False)


def test_that_demand_brings_blocks_up_to_the_limit():
    assert decide([], 3, LIMITS).request == 1
    assert decide([], 5, LIMITS).request == 2
    assert decide([], 500, LIMITS).request == 2
    assert decide([waiting("a")], 500, LIMITS).request == 1
    assert decide([], 0, LIMITS).request == 0


def test_that_a_successor_is_requested_while_a_block_runs_out():
    limits = Limits(max_blocks=1, workers_per_block=4, lead_s=10.0, useful_s=5.0)
    assert decide([running("a", 11.0)], 4, limits).request == 0
    assert decide([running("a", 9.0)], 4, limits).request == 1
    assert decide([running("a", 9.0), waiting("b")], 4, limits).request == 0


def test_that_an_idle_block_too_short_for_every_slice_is_released_if_that_saves_something():
    limits = Limits(max_blocks=1, workers_per_block=4, lead_s=10.0, useful_s=600.0)
    assert decide([running("a", 400.0, idle=True)], 4, limits).release == ("a",)
    assert decide([running("a", 400.0, idle=False)], 4, limits).release == ()
    assert decide([running("a", 9.0, idle=True)], 4, limits).release == ()


def test_that_blocks_beyond_the_demand_are_released_only_when_idle():
    blocks = [running("a", 50.0, idle=True), running("b", 80.0, idle=False)]
    assert decide(blocks, 3, LIMITS).release == ("a",)
    assert decide(blocks, 8, LIMITS).release == ()
    assert decide([running("a", idle=True)], 0, LIMITS).release == ("a",)


def test_that_a_successor_without_work_yet_is_not_released():
    limits = Limits(max_blocks=1, workers_per_block=4, lead_s=3.0, useful_s=1.0)
    blocks = [running("a", 4.0), running("b", 57.0, idle=True)]
    assert decide(blocks, 4, limits).release == ()
    assert decide([running("a", 50.0), blocks[1]], 4, limits).release == ("b",)


def test_that_the_last_trials_keep_no_more_blocks_than_they_need_however_long_jobs_wait():
    limits = Limits(max_blocks=3, workers_per_block=4, lead_s=3600.0, useful_s=5.0)
    blocks = [running("a", 1000.0), running("b", 1100.0, idle=True), running("c", 1000.0, True)]
    assert decide(blocks, 4, limits).release == ("c", "b")
    assert decide(blocks, 5, limits).release == ("c",), "the fifth may run on b"
    assert decide(blocks, 9, limits).release == ()
    older = running("a", 700.0)
    assert decide([older, blocks[1]], 4, limits).release == (), "it goes on when a has ended"


blocks_strategy = st.lists(
    st.builds(
        LiveBlock,
        id=st.uuids().map(str),
        running=st.booleans(),
        seconds_left=st.one_of(st.floats(0, 1000), st.just(math.inf)),
        idle=st.booleans(),
    ),
    max_size=6,
)


@given(blocks_strategy, st.integers(0, 100), st.integers(1, 5))
def test_that_limits_hold_and_nothing_busy_is_released(blocks, demand, most):
    limits = Limits(most, 4, 10.0, 5.0)
    decision = decide(blocks, demand, limits)
    lasting = [b for b in blocks if not b.running or b.seconds_left > limits.lead_s]
    assert decision.request == 0 or len(lasting) + decision.request <= most
    by_id = {b.id: b for b in blocks}
    assert all(by_id[i].idle and by_id[i].running for i in decision.release)
    assert len(set(decision.release)) == len(decision.release)
