"""Studies in virtual time, held against what can be worked out by hand."""

from __future__ import annotations

import queue
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpc_hpo.cli.main import cli
from hpc_hpo.errors import InputError
from hpc_hpo.journal import read_events, replay
from hpc_hpo.optimizers.random import RandomSearch
from hpc_hpo.simulate.clock import START, VirtualClock
from hpc_hpo.simulate.draws import Draw, parse_draw
from hpc_hpo.simulate.run import Assumptions, Simulated, prepare, simulate
from hpc_hpo.site import load_site
from hpc_hpo.study.load import load_study

STUDY = """\
name: modelled
objective: objective.py:train
space: {x: {float: [0, 1]}, y: {float: [0, 1]}}
optimizer: random
budget: {trials: 1000}
trial: {cores_per_rank: 7, gpus_per_rank: 1}
"""
TEN_MINUTES = Draw("constant", (600.0,))


def run(folder: Path, *, nodes: int = 2, text: str = STUDY, keep: Path | None = None,
        blocks: int | None = None, **assumed: object) -> Simulated:  # fmt: skip
    file = folder / "study.yaml"
    file.write_text(text)
    site = load_site("summit")
    study = prepare(load_study(file), site, nodes=nodes, blocks=blocks)
    given = Assumptions(**{"trial_time": TEN_MINUTES, "cpu": 0.0, **assumed})  # type: ignore[arg-type]
    return simulate(study, site, given, keep=keep)


def share(found: Simulated, part: str) -> float:
    return found.parts[part] / found.allocated_s


def test_that_the_clock_goes_from_event_to_event_in_their_order() -> None:
    clock, happened = VirtualClock(0.0), list[tuple[str, float]]()
    items: queue.SimpleQueue[str] = queue.SimpleQueue()

    def arrive(at: float) -> None:
        happened.append(("late", at))
        items.put("outcome")

    clock.at(START + 9.0, arrive)
    clock.at(START + 4.0, lambda at: happened.append(("early", at)))
    with pytest.raises(queue.Empty):
        clock.next_of(items, 0.25)
    assert clock.now() < START + 4.0
    clock.sleep(6.0)
    assert clock.next_of(items, 5.0) == "outcome"
    assert happened == [("early", START + 4.0), ("late", START + 9.0)]
    assert clock.now() == START + 9.0


def test_that_cpu_time_of_steering_passes_and_that_of_the_model_does_not() -> None:
    used = iter([0.0, 1.0, 1.5, 8.0, 8.0])
    clock = VirtualClock(2.0, lambda: next(used))
    assert clock.now() == START + 2.0
    with clock.aside():
        assert clock._now == START + 3.0
    assert clock.now() == START + 3.0


def test_that_trials_without_checkpoints_lose_what_is_left_of_their_blocks(tmp_path: Path) -> None:
    # The next block starts at the earliest a job's wait after the lead that is learned: later.
    found = run(tmp_path, resumable=False, stop_s=3600.0 + 7100.0, dispatch_s=0.0)
    # 2 h less a minute hold 11 trials of ten minutes; a twelfth is not begun.
    assert found.state.trial_states["completed"] == 11 * 12
    assert found.parts["trials"] == pytest.approx(12 * 6600)
    assert found.parts["start-up"] == pytest.approx(12 * 60)
    assert found.parts["ends of blocks"] == pytest.approx(12 * (7100 - 6660), rel=1e-3)
    assert found.allocated_s == pytest.approx(12 * 7100)


def test_that_trials_with_checkpoints_use_the_ends_of_blocks(tmp_path: Path) -> None:
    found = run(tmp_path, stop_s=2 * 3600.0 + 2 * 7200.0, checkpoint_s=1.0)
    assert share(found, "trials") > 0.97
    assert found.state.slice_ends["paused"] >= 12
    assert found.parts["work lost"] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("assumed", [
    {"mtbf_s": 9000.0}, {"fails": 0.2}, {"resumable": False, "mtbf_s": 9000.0, "fails": 0.1},
])  # fmt: skip
def test_that_the_parts_add_up_to_what_was_allocated(
    tmp_path: Path, assumed: dict[str, object]
) -> None:
    found = run(tmp_path, trials=300, trial_time=Draw("lognormal", (600.0, 0.5)), **assumed)
    assert found.allocated_s == pytest.approx(found.node_hours * 3600 * 6)
    assert min(found.parts.values()) >= 0.0
    lost = ("work lost", "failed attempts", "dead nodes")
    assert found.lost_s == found.plain()["lost_worker_seconds"] > 0.0
    assert found.lost_s == pytest.approx(sum(found.parts[name] for name in lost))
    assert found.state.allocated_s(START + found.finish_s) == pytest.approx(found.allocated_s)
    if "mtbf_s" in assumed:
        assert found.parts["dead nodes"] > 0.0
        assert found.state.slice_ends["lost"] > 0
    if "fails" in assumed:
        assert found.parts["failed attempts"] > 0.0


def test_that_the_queue_s_limits_are_never_passed(tmp_path: Path) -> None:
    found = run(tmp_path, blocks=10, trials=1000, nodes=1)
    assert found.most_waiting == 4  # max_eligible of summit's queue
    assert found.jobs >= 10


def test_that_two_runs_without_cpu_time_write_the_same_journal(tmp_path: Path) -> None:
    text = STUDY.replace("random", "auto")
    for name in ("a", "b"):
        run(tmp_path, text=text, trials=60, keep=tmp_path / name,
            trial_time=Draw("lognormal", (600.0, 0.5)), mtbf_s=72000.0)  # fmt: skip
    first, second = ((tmp_path / name / "journal.jsonl").read_bytes() for name in ("a", "b"))
    assert first == second
    state = replay(read_events(tmp_path / "a" / "journal.jsonl"))
    assert state.trial_states["completed"] == 60


def test_that_a_slow_ask_shows_as_idle_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = run(tmp_path, trials=200)
    spent: list[VirtualClock] = []
    made = VirtualClock.__init__

    def remember(clock: VirtualClock, *arguments: float, **named: float) -> None:
        made(clock, *arguments, **named)
        spent.append(clock)

    ask = RandomSearch.ask

    def slow(self: RandomSearch, ids: list[int]) -> list[dict[str, object]]:
        spent[-1].spend(20.0 * len(ids))
        return ask(self, ids)

    monkeypatch.setattr(VirtualClock, "__init__", remember)
    monkeypatch.setattr(RandomSearch, "ask", slow)
    slowed = run(tmp_path, trials=200)
    assert share(slowed, "waiting for points") > 0.05
    assert share(slowed, "waiting for points") > 20 * share(quick, "waiting for points")


def test_that_what_is_known_before_is_told_and_evaluated_first(tmp_path: Path) -> None:
    known = "start_from: [{points: [{x: 0.123, y: 0.5}, {point: {x: 0.5, y: 0.5}, loss: 0.1}]}]\n"
    found = run(tmp_path, text=STUDY.replace("1000", "5") + known, nodes=1)
    assert [t.point["x"] for t in found.state.trials.values()].count(0.123) == 1
    assert found.state.trials[0].point == {"x": 0.123, "y": 0.5}
    assert [given.loss for given in found.state.segments[None].told] == [0.1]


@pytest.mark.parametrize(("text", "mean"), [
    ("10m", 600.0), ("constant(600)", 600.0), ("uniform(5m, 15m)", 600.0),
    ("lognormal(600, 0)", 600.0), ("weibull(10m, 1)", 600.0), ("exponential(600)", 600.0),
])  # fmt: skip
def test_that_distributions_are_read(text: str, mean: float) -> None:
    assert parse_draw(text, "--trial-time").mean == pytest.approx(mean)


@pytest.mark.parametrize("text", [
    "lognormal(600)", "gamma(1, 2)", "uniform(9, 3)", "constant(-5)", "soon", "weibull(9, 0)",
    "nan", "inf", "-5", "0", "uniform(0, 0)", "lognormal(600, 1000)", "weibull(600, 0.001)",
])  # fmt: skip
def test_that_what_is_no_distribution_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match=r"--trial-time: .*valid: a duration, or constant"):
        parse_draw(text, "--trial-time", positive=True)


def test_that_a_wait_may_be_no_time_at_all() -> None:
    assert parse_draw("0", "--queue-wait").mean == 0.0


@pytest.mark.parametrize(("arguments", "word"), [
    ([], "trial.expected_time"),
    (["--trial-time", "gamma(1)"], "--trial-time"),
    (["--trial-time", "10m", "--nodes", "5000"], "1 to 4608 nodes"),
    (["--trial-time", "10m", "--walltime", "9h"], "blocks.walltime"),
    (["--trial-time", "10m", "--objective", "nothing:here"], "--objective"),
    (["--trial-time", "10m", "--mtbf", "long"], "--mtbf"),
    (["--trial-time", "10m", "--keep", "."], "--keep: is not empty"),
    (["--trial-time", "10m", "--keep", "study.yaml"], "--keep: is no folder"),
    (["--trial-time", "10m", "--cpu", "nan"], "--cpu: not a finite number"),
    (["--trial-time", "10m", "--walltime", "1m"], "blocks.walltime: no trial can begin"),
    (["--trial-time", "10m", "--start-up", "uniform(10, 20)", "--walltime", "8s"],
     "blocks: no trial has come on"),
    (["--trial-time", "10m", "--mtbf", "10s"], "blocks: no trial has come on"),
    (["--trial-time", "10m", "--preempt", "1h"], "queue batch at summit preempts no jobs"),
    (["--trial-time", "10m", "--preempt", "never"], "--preempt"),
])  # fmt: skip
def test_that_a_user_s_mistake_is_one_clear_error(
    tmp_path: Path, arguments: list[str], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    if "--walltime" not in arguments and "--nodes" not in arguments:
        arguments = [*arguments, "--nodes", "1"]
    result = CliRunner().invoke(cli, ["simulate", "study.yaml", "--site", "summit", *arguments])
    assert result.exit_code == 2
    assert word in result.output
    assert "Traceback" not in result.output


def test_that_the_command_prints_and_writes_only_what_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    arguments = ["--site", "summit", "--nodes", "1", "--trial-time", "10m", "--trials", "30"]
    result = CliRunner().invoke(cli, ["simulate", str(tmp_path / "study.yaml"), *arguments])
    assert result.exit_code == 0, result.output
    assert "utilisation" in result.output
    assert "30 completed" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["study.yaml"]


KILLABLE = STUDY + "queue: killable\n"


@pytest.mark.parametrize("steps", [600, 4])
def test_that_preempted_jobs_end_early_and_their_trials_go_on(tmp_path: Path, steps: int) -> None:
    found = run(tmp_path, text=KILLABLE, nodes=4, trials=600, steps=steps, checkpoint_s=1.0,
                preempted=Draw("constant", (1800.0,)))  # fmt: skip
    assert found.study.blocks.walltime == 24 * 3600
    ended = [block for block in found.state.blocks.values() if block.reason == "preempted"]
    assert ended
    for block in ended:
        # 2 h until it may be, half an hour until it is, and 3/4 of 10 s for its slices.
        assert block.ended is not None and block.started is not None
        assert block.ended - block.started == pytest.approx(2.5 * 3600 + 7.5)
    assert found.state.trial_states["completed"] == 600
    cut = [s for t in found.state.trials.values() for s in t.slices if s.reason == "preempted"]
    hows = {s.end.value for s in cut if s.end is not None}
    # A step of 1 s ends in the 7.5 s that are left; one of 150 s mostly does not.
    assert hows == ({"paused"} if steps == 600 else {"paused", "lost"} & hows)
    assert (found.parts["work lost"] > 1.0) == (steps == 4)
    assert found.allocated_s == pytest.approx(found.node_hours * 3600 * 6)
    assert min(found.parts.values()) >= 0.0


def test_that_no_more_jobs_run_than_the_queue_lets_run(tmp_path: Path) -> None:
    text = "extends: summit\nname: narrow\nqueues: {batch: {max_running: 2}}\n"
    (tmp_path / "narrow.yaml").write_text(text)
    (tmp_path / "study.yaml").write_text(STUDY)
    most = {}
    for name in ("summit", str(tmp_path / "narrow.yaml")):
        site = load_site(name)
        study = prepare(load_study(tmp_path / "study.yaml"), site, nodes=1, blocks=2)
        # Jobs of no wait, asked for before their predecessors end, would begin at once.
        given = Assumptions(TEN_MINUTES, cpu=0.0, trials=600, queue_wait=Draw("uniform", (0, 7200)))
        found = simulate(study, site, given)
        assert found.state.trial_states["completed"] == 600
        spans = [(b.started, b.ended) for b in found.state.blocks.values() if b.started]
        most[site.name] = max(
            sum(a <= start < (b or start) for a, b in spans) for start, _ in spans
        )
    assert most["narrow"] == 2 < most["summit"]


def test_that_a_study_of_frequent_checkpoints_is_taken_to_have_short_ones(tmp_path: Path) -> None:
    found = run(tmp_path, text=STUDY + "checkpoint: {every: 10s}\n", trials=100)
    assert 0.0 < found.parts["checkpoints"] < 0.05 * found.parts["trials"]
    slow = run(tmp_path, text=STUDY + "checkpoint: {every: 10s}\n", trials=100, checkpoint_s=5.0)
    assert slow.parts["checkpoints"] > 0.4 * slow.parts["trials"]
