"""The plan: what shapes of blocks cost, and which one is recommended."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpc_hpo.errors import InputError
from hpc_hpo.pilot.free import Window
from hpc_hpo.pilot.queues import check_request
from hpc_hpo.plan import LEARNS_NOTHING, Work, evaluate, make_plan, resolve_blocks
from hpc_hpo.site import Site, load_site
from hpc_hpo.study import Study, parse_study
from hpc_hpo.yamlio import load_yaml

SUMMIT = load_site("summit")


def study_of(
    more: str = "blocks: auto\n", trials: int = 200, time: str = "50m", files: str = "['*.pt']"
) -> Study:
    text = (
        "name: s\ncommand: [prog]\nspace: {x: {int: [1, 2]}}\naccount: A\n"
        f"budget: {{trials: {trials}}}\ncheckpoint: {{files: {files}}}\n"
        f"trial: {{gpus_per_rank: 1, cores_per_rank: 7, expected_time: {time}}}\n{more}"
    )
    return parse_study(load_yaml(text, "study.yaml"), path=Path("study.yaml"))


def own_site(folder: Path, text: str) -> Site:
    (folder / "s.yaml").write_text(text)
    return load_site("s.yaml", folder)


def test_that_one_full_block_loses_its_start_up_alone() -> None:
    work = Work(trials=10, trial_s=90, resumable=True, margin_s=5, start_up_s=10)
    choice = evaluate(work, nodes=5, per_node=2, at_once=1, walltime_s=200, wait_s=50)
    assert choice is not None
    assert (choice.chain, choice.jobs, choice.workers) == (1, 1, 10)
    assert choice.node_hours == pytest.approx(5 * 100 / 3600)
    assert choice.lost == pytest.approx(0.1)
    assert choice.finish_s == 150


def test_that_a_long_trial_goes_on_over_a_chain_of_blocks() -> None:
    work = Work(trials=1, trial_s=255, resumable=True, margin_s=5, start_up_s=10)
    choice = evaluate(work, nodes=1, per_node=1, at_once=1, walltime_s=100, wait_s=30)
    assert choice is not None
    # Three blocks of 100 s, each with 85 s of use; the next one waits while one runs.
    assert choice.chain == 3
    assert choice.finish_s == 30 + 200 + 95
    assert choice.node_hours == pytest.approx(295 / 3600)


def test_that_a_wait_longer_than_a_block_leaves_gaps_in_the_chain() -> None:
    work = Work(trials=1, trial_s=255, resumable=True, margin_s=5, start_up_s=10)
    choice = evaluate(work, nodes=1, per_node=1, at_once=1, walltime_s=100, wait_s=300)
    assert choice is not None and choice.finish_s == 300 + 2 * 300 + 95


def test_that_a_trial_without_checkpoints_starts_only_where_it_can_finish() -> None:
    work = Work(trials=3, trial_s=50, resumable=False, margin_s=5, start_up_s=10)
    choice = evaluate(work, nodes=1, per_node=1, at_once=1, walltime_s=100, wait_s=0)
    assert choice is not None and choice.chain == 3
    assert choice.lost == pytest.approx(1 - 150 / 260)
    assert evaluate(work, 1, 1, 1, walltime_s=60, wait_s=0) is None


def test_that_blocks_without_work_in_the_last_round_are_released() -> None:
    work = Work(trials=6, trial_s=100, resumable=True, margin_s=0, start_up_s=0)
    four = evaluate(work, nodes=1, per_node=1, at_once=4, walltime_s=1000, wait_s=0)
    wide = evaluate(work, nodes=4, per_node=1, at_once=1, walltime_s=1000, wait_s=0)
    assert four is not None and wide is not None
    assert four.lost == pytest.approx(0) and wide.lost == pytest.approx(0.25)
    assert four.finish_s == wide.finish_s


def test_that_trials_of_several_nodes_are_planned_on_blocks_that_hold_them() -> None:
    # Two nodes of four ranks each.
    study = study_of("blocks: auto\n", trials=10)
    wide = study.model_copy(
        update={"trial": study.trial.model_copy(update={"ranks": 8, "cores_per_rank": 1})}
    )
    plan = make_plan(wide, SUMMIT)
    assert all(c.nodes >= 2 and c.workers <= c.nodes // 2 * c.at_once for c in plan.choices)
    narrow = Window(nodes=1, seconds=7200.0)
    assert make_plan(wide, SUMMIT, free=[narrow]).recommended.nodes >= 2
    work = Work(trials=4, trial_s=100, resumable=True, margin_s=0, start_up_s=0)
    choice = evaluate(work, nodes=4, per_node=0.5, at_once=1, walltime_s=1000, wait_s=0)
    assert choice is not None and (choice.workers, choice.lost) == (2, 0.0)


@given(
    trials=st.integers(1, 300),
    trial_s=st.floats(1, 20_000),
    resumable=st.booleans(),
    nodes=st.integers(1, 40),
    at_once=st.integers(1, 4),
    walltime_s=st.none() | st.floats(600, 90_000),
)
def test_that_no_choice_computes_more_than_it_holds(
    trials: int,
    trial_s: float,
    resumable: bool,
    nodes: int,
    at_once: int,
    walltime_s: float | None,
) -> None:
    work = Work(trials, trial_s, resumable, margin_s=30, start_up_s=60)
    choice = evaluate(work, nodes, 6, at_once, walltime_s, wait_s=100)
    assume(choice is not None)
    assert choice is not None
    assert 0 <= choice.lost < 1
    assert choice.node_hours * 3600 * 6 * (1 - choice.lost) == pytest.approx(trials * trial_s)
    assert choice.finish_s >= 100 + 60 + trial_s * (1 - 1e-9)
    if walltime_s is not None and resumable:
        # The last block, too, ends within its walltime.
        assert choice.finish_s <= 100 + choice.chain * max(walltime_s, 100) + 1e-3


def test_that_every_choice_is_one_that_the_queue_takes() -> None:
    for name in ("summit", "frontier", "polaris", "perlmutter"):
        site = load_site(name)
        plan = make_plan(study_of(), site)
        assert plan.recommended in plan.choices
        for choice in plan.choices:
            assert check_request(site, None, choice.nodes, choice.walltime_s) is None
            assert choice.at_once <= 4


def test_that_no_shown_choice_is_worse_than_another_in_every_respect() -> None:
    plan = make_plan(study_of(), SUMMIT)
    seen = [(c.node_hours, c.finish_s, c.workers) for c in plan.choices if c != plan.recommended]
    assert len(seen) > 3
    for one in seen:
        assert not any(o != one and all(b <= a for a, b in zip(one, o, strict=True)) for o in seen)


def test_that_an_optimiser_that_learns_gets_its_rounds_and_sobol_does_not_need_them() -> None:
    learning = make_plan(study_of(), SUMMIT)
    assert learning.recommended.workers <= 50 and "learn" in learning.reason
    assert "sobol" in LEARNS_NOTHING
    blind = make_plan(study_of("blocks: auto\noptimizer: sobol\n"), SUMMIT)
    assert blind.recommended.finish_s < learning.recommended.finish_s


def test_that_a_limit_of_wall_time_is_kept_where_it_can_be() -> None:
    free = make_plan(study_of(trials=400), SUMMIT).recommended
    limit = free.finish_s / 2
    study = study_of("blocks: auto\n", trials=400)
    held = study.model_copy(update={"budget": study.budget.model_copy(update={"wall_time": limit})})
    assert make_plan(held, SUMMIT).recommended.finish_s <= limit
    late = study.model_copy(update={"budget": study.budget.model_copy(update={"wall_time": 60.0})})
    assert "no choice finishes within budget.wall_time" in make_plan(late, SUMMIT).reason


def test_that_the_study_s_own_blocks_stand_among_the_choices() -> None:
    plan = make_plan(study_of("blocks: {nodes: 4, walltime: 2:00, max: 2}\n"), SUMMIT)
    (asked,) = [c for c in plan.choices if c.asked]
    assert (asked.nodes, asked.at_once, asked.walltime_s) == (4, 2, 7200)
    assert plan.refused is None and not plan.recommended.asked


def test_that_blocks_which_the_queue_would_refuse_are_told() -> None:
    plan = make_plan(study_of("blocks: {nodes: 45, walltime: 3:00}\n"), SUMMIT)
    assert plan.refused is not None and "46 nodes" in plan.refused
    assert not [c for c in plan.choices if c.asked]
    short = make_plan(study_of("blocks: {nodes: 1, walltime: 1m}\n"), SUMMIT)
    assert short.refused == "no trial would ever finish in one"


def test_that_a_wait_in_the_queue_is_an_assumption_of_the_caller() -> None:
    near = make_plan(study_of(), SUMMIT, queue_wait_s=0)
    far = make_plan(study_of(), SUMMIT, queue_wait_s=10 * 3600)
    assert min(c.finish_s for c in far.choices) > 10 * 3600
    assert min(c.finish_s for c in near.choices) < 3600 * 2
    assert any("10h" in text for text in far.assumptions)
    assert far.recommended.chain <= near.recommended.chain


def test_that_a_queue_which_forbids_chains_gets_no_chain(tmp_path: Path) -> None:
    text = "extends: summit\nname: s\nqueues: {batch: {chaining: %s}}\n"
    free = make_plan(study_of(), own_site(tmp_path, text % "true"))
    assert max(c.chain for c in free.choices) > 1
    bound = make_plan(study_of(), own_site(tmp_path, text % "false"))
    assert {c.chain for c in bound.choices} == {1}


def test_that_a_chain_needs_room_for_its_next_job(tmp_path: Path) -> None:
    text = "extends: summit\nname: s\nqueues: {batch: {max_queued: 1}}\n"
    plan = make_plan(study_of(), own_site(tmp_path, text))
    assert {c.jobs for c in plan.choices} == {1}


@pytest.mark.parametrize(
    ("study", "site", "key", "words"),
    [
        (study_of(time="null"), "summit", "trial.expected_time", "how long"),
        (study_of("blocks: auto\nqueue: bacth\n"), "summit", "queue", "did you mean 'batch'"),
        (study_of(time="3h", files="[]", trials=6), "ascent", "trial.expected_time", "files"),
        (
            study_of("blocks: auto\nqueue: debug\n", time="30h", trials=6), "summit",
            "trial.expected_time", "forbids chains",
        ),
    ],
)  # fmt: skip
def test_that_what_cannot_be_planned_is_told(study: Study, site: str, key: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(study, load_site(site))
    assert caught.value.key == key
    assert words in str(caught.value)


def test_that_auto_takes_the_recommendation_and_a_mapping_stays() -> None:
    best = make_plan(study_of(), SUMMIT).recommended
    blocks = resolve_blocks(study_of(), SUMMIT)
    assert (blocks.nodes, blocks.walltime, blocks.max) == (
        best.nodes, best.walltime_s, best.at_once
    )  # fmt: skip
    assert not blocks.auto
    own = study_of("blocks: {nodes: 3, walltime: 1h}\n")
    assert resolve_blocks(own, SUMMIT) is own.blocks


def test_that_site_local_is_one_machine_without_a_queue(tmp_path: Path) -> None:
    site = own_site(tmp_path, "extends: local\nname: l\nnode: {cores: 14, gpus: 2}\n")
    plan = make_plan(study_of(trials=4, time="1m"), site, start_up_s=0)
    assert plan.recommended.finish_s == 120
    blocks = resolve_blocks(study_of(trials=4, time="1m"), site)
    assert (blocks.nodes, blocks.walltime, blocks.max) == (1, None, 1)


def test_that_without_known_limits_a_block_is_a_day_at_most(tmp_path: Path) -> None:
    site = own_site(tmp_path, "extends: slurm\nname: s\nnode: {cores: 7, gpus: 1}\n")
    walltimes = {c.walltime_s or 0 for c in make_plan(study_of(time="9h"), site).choices}
    assert max(walltimes) == 86400


def test_that_a_block_is_shaped_to_what_is_free_now() -> None:
    study = study_of(trials=60, time="10m")
    free = [Window(2, 4200.0)]
    plan = make_plan(study, SUMMIT, queue_wait_s=20 * 3600, free=free)
    now = [choice for choice in plan.choices if choice.free_now]
    assert plan.recommended in now
    for choice in now:
        assert choice.nodes * choice.at_once <= 2 and (choice.walltime_s or 0) <= 4200
    waiting = make_plan(study, SUMMIT, queue_wait_s=20 * 3600)
    assert not any(choice.free_now for choice in waiting.choices)
    assert plan.recommended.finish_s < waiting.recommended.finish_s
    # A moment that is free, with a long wait for each job after it, does not beat one wait.
    brief = make_plan(study, SUMMIT, queue_wait_s=20 * 3600, free=[Window(1, 900.0)])
    assert not brief.recommended.free_now


def budgeted(budget: str, more: str = "") -> Study:
    text = (
        "name: s\nobjective: o.py:f\nspace: {x: {int: [1, 2]}}\naccount: A\nblocks: auto\n"
        f"budget: {budget}\n{more}"
        "trial: {gpus_per_rank: 1, cores_per_rank: 7, expected_time: 50m}\n"
    )
    return parse_study(load_yaml(text, "study.yaml"), path=Path("study.yaml"))


def test_that_node_hours_are_planned_as_the_trials_they_pay_for() -> None:
    plan = make_plan(budgeted("{node_hours: 10}"), SUMMIT)
    # Six trials at one time on a node, each of 50 minutes: 7.2 an hour.
    assert "each of 72 trials takes 50m (budget.node_hours is enough for 72" in plan.assumptions[0]
    assert "ends every choice early" not in plan.reason
    more = make_plan(budgeted("{node_hours: 10, trials: 1000}"), SUMMIT)
    assert "72 trials" in more.assumptions[0], "the first limit that is reached"


def test_that_a_plan_says_when_its_node_hours_do_not_last() -> None:
    plan = make_plan(budgeted("{node_hours: 10, trials: 72}"), SUMMIT)
    assert "budget.node_hours (10) ends every choice early" in plan.reason
    assert min(choice.node_hours for choice in plan.choices) > 10
    plan = make_plan(budgeted("{node_hours: 40, trials: 72}"), SUMMIT)
    assert plan.recommended.node_hours <= 40
    assert "early" not in plan.reason


def test_that_steps_are_planned_as_whole_trials_where_their_length_is_known() -> None:
    plan = make_plan(budgeted("{epochs: 5400}", "fidelity: {policy: asha, max: 27}\n"), SUMMIT)
    assert "each of 200 trials" in plan.assumptions[0]
    with pytest.raises(InputError, match="how many trials these steps are") as found:
        make_plan(budgeted("{epochs: 5400}"), SUMMIT)
    assert found.value.key == "budget.epochs"
