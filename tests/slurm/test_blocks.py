"""Studies on a real Slurm: blocks that are killed, cancelled, requeued, and lose their nodes."""

from __future__ import annotations

import pytest

# The machine may be busy with other things; alone, each takes well under a minute.
pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.batch, pytest.mark.timeout(240)]


def no_attempt_was_spent(state) -> bool:
    """No payload was blamed for what happened to its block."""
    return all(t.failures == 0 for t in state.trials.values())


def test_that_trials_three_times_longer_than_a_block_finish_over_jobs_that_slurm_kills(
    hurried_shop,
):
    shop = hurried_shop
    shop.write(trials=2, steps=300)
    shop.start()
    state = shop.finish(200)
    killed = [job for job, how in shop.cluster.ended().items() if how == "TIMEOUT"]
    assert len(killed) >= 3, shop.cluster.ended()
    assert state.trial_states["completed"] == 2
    assert no_attempt_was_spent(state)
    assert state.wasted_s < 0.02 * state.allocated_s(state.last_at)
    assert shop.most_queued <= 2


def test_that_a_cancelled_and_a_requeued_block_lose_no_result_and_no_attempt(shop):
    shop.write(trials=2, steps=120)
    shop.start()
    shop.wait_until(lambda: shop.steps_done() > 2, 20)
    (first,) = [job for job, state, *_ in shop.cluster.queue() if state == "R"]
    shop.cluster.call("scancel", first)

    def second_works() -> bool:
        running = [job for job, state, *_ in shop.cluster.queue() if state == "R"]
        saved = {path.parent for path in shop.study.glob("trials/*/ckpt-000002-*")}
        return running not in ([], [first]) and len(saved) == 2

    shop.wait_until(second_works, 30)
    (second,) = {job for job, *_ in shop.cluster.queue()} - {first}
    shop.cluster.call("scontrol", "requeue", second)
    state = shop.finish(120)
    assert state.trial_states["completed"] == 2
    assert no_attempt_was_spent(state)
    assert state.slice_ends["lost"] == 0, "each slice could checkpoint before the KILL"
    requeued = [b for b in state.blocks.values() if b.job == second]
    assert len(requeued) == 2, "the same job, and two blocks"
    assert shop.most_queued <= 2


def test_that_a_lost_node_is_noticed_and_the_other_goes_on(shop):
    shop.write(trials=4, steps=100, nodes=2)
    shop.start()
    shop.wait_until(lambda: shop.steps_done() > 3, 20)
    shop.cluster.kill_node(2)
    try:
        shop.wait_until(lambda: shop.state().slice_ends["lost"] == 2, 20)
        state = shop.finish(120)
    finally:
        shop.cluster.start_node(2)
    assert state.trial_states["completed"] == 4
    assert no_attempt_was_spent(state)
    untouched = [t for t in state.trials.values() if len(t.slices) == 1]
    assert len(untouched) == 2, "the other node's slices were not disturbed"


def test_that_a_node_taken_for_dead_cannot_commit_any_more(shop):
    # Its daemon is killed: its slices go on, Slurm gives the node up, the job comes back elsewhere.
    shop.write(trials=2, steps=150)
    shop.start()
    shop.wait_until(lambda: shop.steps_done() > 2, 20)
    ((_, _, node),) = shop.cluster.queue()
    number = int(node.removeprefix("n"))
    shop.cluster.kill_daemon(number)
    shop.cluster.give_up(number)
    try:
        shop.wait_until(lambda: len(shop.state().refused) == 2, 40)
    finally:
        shop.cluster.start_node(number)
    state = shop.finish(120)
    assert state.trial_states["completed"] == 2
    assert no_attempt_was_spent(state)
    refused = [event["outcome"] for event in state.refused]
    assert {outcome["end"] for outcome in refused} == {"fenced"}
    for trial in state.trials.values():
        kept = {s.number for s in trial.slices if s.end is not None and s.end.value != "lost"}
        assert trial.checkpoint is None or trial.checkpoint["slice"] in kept | {1}


def test_that_a_killed_steering_process_leaves_no_job_behind_its_successor(shop):
    shop.write(trials=4, steps=40)
    first = shop.start()
    shop.wait_until(lambda: shop.state().trial_states["completed"] == 2, 40)
    before = {t.id: t.loss for t in shop.state().trials.values() if t.loss is not None}
    first.kill()
    first.wait()
    shop.start()
    state = shop.finish(120)
    assert state.trial_states["completed"] == 4
    assert no_attempt_was_spent(state)
    assert before.items() <= {t.id: t.loss for t in state.trials.values()}.items()
    assert sum(len(t.slices) for t in state.trials.values() if t.id in before) == 2, "run once"
    assert shop.most_queued <= 2
