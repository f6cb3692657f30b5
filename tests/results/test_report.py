"""The data of the report's plots, and the page around them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.simulated import START, Shape, events, fifteen_segments, study_spec
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import Event, replay
from hpc_hpo.results.report.compare import comparison, labels, settings_rows
from hpc_hpo.results.report.content import content
from hpc_hpo.results.report.curves import curves, rung_steps
from hpc_hpo.results.report.history import history
from hpc_hpo.results.report.importance import contours, importance
from hpc_hpo.results.report.material import Material, integral
from hpc_hpo.results.report.page import json_in_html, render
from hpc_hpo.results.report.points import axes, columns
from hpc_hpo.results.report.segments import segments
from hpc_hpo.results.report.timeline import timeline
from hpc_hpo.version import versions
from tests import events as ev

SPACE = {
    "lr": {"float": [1e-5, 1e-1], "log": True},
    "n": {"int": [0, 9]},
    "act": {"choice": ["relu", "tanh"]},
}


def material(*history: Event, study: dict[str, Any] | None = None, now: float = 0.0) -> Material:
    plain = {"name": "s", "space": SPACE, "budget": {"trials": 9}, **(study or {})}
    return Material(StudyFolder(Path("/nowhere")), plain, replay(history), now or ev.START + 7200)


def done(trial: int, loss: float, at: float, **point: Any) -> list[Event]:
    return [
        ev.asked(trial, point or {"lr": 0.1, "n": trial}, at - 20),
        ev.submit(trial, 1, at - 10),
        ev.end(trial, 1, "completed", "completed", at=at, loss=loss),
    ]


@pytest.fixture(scope="module")
def simulated() -> Material:
    shape = Shape(200)
    return Material(
        StudyFolder(Path("/nowhere")), study_spec(shape), replay(events(shape)), START + 1e6
    )


def test_that_an_integral_counts_what_has_passed_of_each_interval() -> None:
    times = np.array([0.0, 1.0, 2.5, 9.0])
    found = integral(times, np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([1.0, 10.0]))
    assert found == pytest.approx([0.0, 0.0, 1.5 + 5.0, 2.0 + 20.0])


def test_that_the_history_has_its_improvements_on_three_axes() -> None:
    start = ev.START
    state = [
        ev.block("b0", "requested", start, requested=start),
        ev.block("b0", "running", start + 600, started=start + 600, workers=8, nodes=2),
        *done(0, 0.5, start + 1800),
        *done(1, 0.7, start + 2400),
        *done(2, 0.25, start + 3600),
        ev.block("b0", "ended", start + 4200, ended=start + 4200),
        *done(3, 0.125, start + 7200),
    ]
    found = material(*state)
    h = history(found, found.groups[0])
    assert h["best"]["trial"] == [0, 2, 3]
    assert h["best"]["loss"] == [0.5, 0.25, 0.125]
    assert h["best"]["n"] == [1, 3, 4]
    assert h["best"]["hours"] == pytest.approx([0.5, 1.0, 2.0])
    assert h["best"]["node_hours"] == pytest.approx([2 / 3, 5 / 3, 2.0], rel=1e-5)
    assert h["dots"]["loss"] == [0.5, 0.7, 0.25, 0.125]
    most = material(*state, study={"direction": "maximize"})
    assert history(most, most.groups[0])["best"]["trial"] == [0, 1]


def test_that_many_trials_become_quantiles_of_stretches(simulated: Material) -> None:
    h = history(simulated, simulated.groups[0], most_dots=150)
    assert h["dots"] is None
    assert h["bands"]["n"][-1] == h["count"] == len(simulated.groups[0].done) > 150
    low, middle, high = (np.array(h["bands"]["quantiles"][k]) for k in (0, 2, 4))
    assert (low <= middle).all() and (middle <= high).all()
    assert min(h["best"]["loss"]) == min(simulated.groups[0].losses)


def test_that_axes_follow_the_space_and_the_values() -> None:
    found = material(
        *done(0, 0.5, ev.START + 10, lr=1e-3, n=3, act="tanh", odd=[1, 2]),
        *done(1, 0.4, ev.START + 20, lr=1e-2, n=4, act="relu", late=0.0),
    )
    kinds = {a.name: (a.kind, a.log) for a in axes(found)}
    assert kinds == {
        "lr": ("number", True), "n": ("number", False), "act": ("category", False),
        "odd": ("category", False), "late": ("number", False),
    }  # fmt: skip
    points = columns(found.groups[0], axes(found), 1, 100)
    by_name = dict(zip([a.name for a in axes(found)], points["columns"], strict=True))
    assert by_name["lr"] == [1e-3, 1e-2]
    assert by_name["late"] == [None, 0.0]
    assert axes(found)[2].categories == ("tanh", "relu") and by_name["act"] == [0.0, 1.0]
    assert points["place"] == [1.0, 0.0]


def test_that_axes_follow_the_spaces_of_segments() -> None:
    log, some = {"float": [1e-6, 1], "log": True}, {"choice": [1, 10, 1000]}
    segments = {"list": [{"name": "a", "space": {"lr": log}}, {"name": "b", "space": {"n": some}}]}
    found = material(
        *done(0, 0.5, ev.START + 10, lr=1e-3, n=10), study={"space": {}, "segments": segments}
    )
    assert {a.name: (a.kind, a.log) for a in axes(found)} == {
        "lr": ("number", True), "n": ("category", False),
    }  # fmt: skip


def test_that_the_best_copy_has_its_line_of_parents() -> None:
    def copy(trial: int, of: int, step: int, lr: float) -> Event:
        parent = {"trial": of, "checkpoint": "c", "step": step, "replaces": 9}
        return {**ev.asked(trial, {"lr": lr, "n": 3}), "parent": parent}

    reports = [[step, {"loss": 1.0}] for step in range(21, 31)]
    found = material(
        *done(0, 0.5, ev.START + 10, lr=0.1, n=3), copy(1, 0, 10, 0.05), copy(2, 1, 20, 0.01),
        ev.submit(2), ev.end(2, 1, "completed", "completed", loss=0.1, reports=reports),
    )  # fmt: skip
    best = content(found)["groups"][0]["best"]
    assert best["line"] == [
        {"trial": 0, "from": 0, "to": 10, "changed": {"lr": 0.1, "n": 3}},
        {"trial": 1, "from": 10, "to": 20, "changed": {"lr": 0.05}},
        {"trial": 2, "from": 20, "to": 30, "changed": {"lr": 0.01}},
    ]


def test_that_versions_are_those_of_the_last_run() -> None:
    shown = versions()
    assert shown["hpc_hpo"] and shown["python"] and shown["numpy"]
    last = {**ev.run(), "versions": shown}
    assert content(material(last))["reproduce"]["versions"] == shown
    old = {"e": "run", "run": 1, "at": ev.START, "version": "0.1", "python": "3.10.2"}
    found = content(material(old))["reproduce"]["versions"]
    assert found == {"hpc_hpo": "0.1", "python": "3.10.2"}


def test_that_a_sample_of_points_holds_the_best_half_of_it(simulated: Material) -> None:
    group = simulated.groups[0]
    some = columns(group, axes(simulated), 1, 50)
    assert len(some["trial"]) == 50 and some["of"] == len(group.done)
    best = np.sort(group.losses)[:25]
    assert set(np.round(best, 5)) <= set(np.round(some["loss"], 5))


def test_that_the_parameter_which_decides_the_loss_is_the_most_important() -> None:
    rng = np.random.default_rng(3)
    story: list[Event] = []
    for trial in range(80):
        lr, n = 10 ** rng.uniform(-5, -1), int(rng.integers(10))
        point: dict[str, Any] = {"n": n, "lr": lr, "act": "relu"}
        if n > 4:
            point["late"] = rng.random()
        story += done(trial, (np.log10(lr) + 3) ** 2, ev.START + 60 * trial + 60, **point)
    found = material(*story)
    known = axes(found)
    result = importance(found.groups[0], known, 1)
    names = [known[i].name for i in result["axis"]]
    assert names[0] == "lr" and "act" not in names, "a parameter of one value has no importance"
    assert result["share"][0] > 10 * result["share"][1]
    assert result["explained"] > 0.8
    (surface,) = contours(found.groups[0], known, 1, result["axis"], 1)
    along = np.array(surface["z"]).mean(axis=0 if known[surface["x"]].name == "lr" else 1)
    where = surface["xs"] if known[surface["x"]].name == "lr" else surface["ys"]
    assert 1e-4 < where[int(along.argmin())] < 1e-2, "the loss is least at 1e-3"
    assert along.min() < 0.3 * along.max()


@pytest.mark.parametrize(
    ("losses", "why"), [([1.0, 2.0], "there are 2"), ([1.0] * 20, "the same"), ([], "there are 0")]
)
def test_that_importance_says_why_there_is_none(losses: list[float], why: str) -> None:
    story = [e for t, loss in enumerate(losses) for e in done(t, loss, ev.START + 60 * t + 60)]
    found = material(*story, ev.asked(99, {"n": 1}))
    assert why in importance(found.groups[0], axes(found), 1)["why"]


def test_that_rungs_count_who_went_on() -> None:
    def paused(trial: int, *, on: bool) -> list[Event]:
        story = [
            ev.asked(trial, {"n": 1}),
            ev.submit(trial, 1),
            ev.end(trial, 1, "paused", "paused", reason="rung", reports=[[3, {"loss": 1.0}]]),
        ]
        return [*story, ev.submit(trial, 2)] if on else story

    found = material(*paused(0, on=True), *paused(1, on=False), *paused(2, on=True))
    assert rung_steps(found.groups[0]) == [{"step": 3, "reached": 3, "gone_on": 2}]


def test_that_curves_of_many_trials_are_the_best_over_quantiles(simulated: Material) -> None:
    group = simulated.groups[0]
    few = curves(simulated, group, ["loss"], 1000)["metrics"]["loss"]
    assert few["bands"] is None
    assert len(few["lines"]) == sum(bool(t.reports) for t in group.trials)
    many = curves(simulated, group, ["loss"], 10)["metrics"]["loss"]
    best = sorted(group.done, key=lambda t: t.loss or 0.0)[:10]
    assert [line["trial"] for line in many["lines"]] == [t.id for t in best]
    assert many["bands"]["trials"][0] > many["bands"]["trials"][-1] > 0
    assert curves(simulated, group, ["no such"], 10)["metrics"]["no such"]["lines"] == []


def test_that_a_trial_stopped_at_a_rung_is_no_match_for_completed_ones() -> None:
    story = [
        *done(0, 0.5, ev.START + 60),
        ev.asked(1, {"lr": 0.2, "n": 1}), ev.submit(1),
        ev.end(1, 1, "paused", "paused", reason="rung", reports=[[3, {"loss": 0.1}]]),
        {"e": "early", "trial": 1, "loss": 0.1, "at": ev.START + 90},
    ]  # fmt: skip
    found = content(material(*story))
    assert found["groups"][0]["best"]["trial"] == 0
    assert found["groups"][0]["history"]["count"] == 1
    (line,) = found["groups"][0]["curves"]["metrics"]["loss"]["lines"]
    assert (line["state"], line["loss"]) == ("stopped", None)


def story_of_a_block() -> list[Event]:
    start = ev.START
    return [
        ev.block("b0", "running", start, started=start, deadline=start + 3600, workers=3),
        ev.asked(0, {"n": 1}), ev.submit(0, 1),
        ev.end(0, 1, "lost", "paused", at=start + 1800, seconds=1800, wasted_s=900.0, worker="0"),
        ev.submit(0, 2, start + 1800),
        ev.end(0, 2, "completed", "completed", at=start + 3600, seconds=900, loss=1.0, worker="1"),
        ev.block("b0", "ended", start + 3600, ended=start + 3600, reason="walltime"),
    ]  # fmt: skip


def test_that_the_timeline_shows_idle_workers_and_lost_work() -> None:
    found = timeline(material(*story_of_a_block()))
    assert len(found["lanes"]) == 3, "a worker that ran nothing has its lane"
    (block,) = found["blocks"]
    assert (block["lane"], block["lanes"], block["end"], block["reason"]) == (0, 3, 1.0, "walltime")
    s = found["slices"]
    assert (s["trial"], s["slice"], s["lane"]) == ([0, 0], [1, 2], [0, 1])
    assert [found["ends"][code] for code in s["code"]] == ["lost", "completed"]
    assert s["lost"] == [0.25, 0.0]
    hours = found["load"]["worker_hours"]
    expected = {"lost": 0.25, "to do again": 0.25, "completed": 0.25, "idle": 2.25}
    assert hours == pytest.approx(expected)


def test_that_too_many_lanes_become_rows_of_blocks() -> None:
    found = timeline(material(*story_of_a_block()), most_lanes=2)
    assert found["lanes"] is None and found["slices"] is None
    (row,) = found["rows"]["share"]
    assert row[0] == pytest.approx(1 / 3, abs=0.01) and row[-1] == row[0]
    assert row[150] == 0.0, "idle after its half hour"


def test_that_a_running_block_lasts_until_its_last_word() -> None:
    found = timeline(material(*story_of_a_block()[:-1]))
    assert found["blocks"][0]["ended"] is False
    assert found["blocks"][0]["end"] == 1.0


def test_that_the_segments_have_their_values_and_histories() -> None:
    shape = fifteen_segments(10)
    found = segments(
        Material(StudyFolder(Path("/nowhere")), study_spec(shape), replay(events(shape)), START)
    )
    assert found is not None
    assert found["numeric"] == ["pid", "eta"] and len(found["rows"]) == 15
    for row in found["rows"]:
        assert row["history"]["loss"][-1] == pytest.approx(row["loss"], rel=1e-5)
        assert row["history"]["count"] == row["completed"]


def test_that_settings_which_differ_come_first() -> None:
    rows = settings_rows([{"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 3]}, "d": "x"}])
    assert [(r["key"], r["values"]) for r in rows] == [
        ("b.c", ["[1, 2]", "[1, 3]"]), ("d", [None, "x"]), ("a", ["1", "1"]),
    ]  # fmt: skip


def test_that_studies_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one = material(*done(0, 0.5, ev.START + 60))
    two = Material(StudyFolder(tmp_path), one.study, one.state, one.now)
    assert labels([one, two]) == ["nowhere", tmp_path.name]
    assert labels([one, one]) == ["s (1)", "s (2)"]
    found = comparison([one, two])
    assert [s["groups"][0]["best"]["loss"] for s in found["studies"]] == [0.5, 0.5]


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> %%OWN%% \u2028 & \ud800"


def test_that_no_text_ends_the_element_it_stands_in() -> None:
    text = json_in_html({HOSTILE: [HOSTILE, float("nan"), float("inf"), 1.5]})
    assert not set(text) & set("<>&\u2028") and text.isascii()
    assert json.loads(text) == {HOSTILE: [HOSTILE, "NaN", "Infinity", 1.5]}


def test_that_the_page_holds_hostile_text_as_data_alone() -> None:
    story = done(0, 0.5, ev.START + 60, **{HOSTILE: HOSTILE})
    page = render(content(material(*story, study={"name": HOSTILE})) | {"version": "0"})
    assert "alert(1)</script>" not in page and "<img" not in page
    assert page.count("<script") == 3 == page.count("</script>")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy and "'unsafe-inline'" not in policy.split(";")[1]


@pytest.mark.parametrize("story", [[], [ev.run()], [ev.run(), ev.asked(0, {}), ev.submit(0)]])
def test_that_a_study_without_results_has_a_page(story: list[Event]) -> None:
    found = content(material(*story))
    assert found["failures"] == {"count": 0, "groups": []}
    assert all(group["best"] is None for group in found["groups"])
    json_in_html(found)
    json_in_html(comparison([material(*story), material(*story)]))


def test_that_a_story_of_any_kind_has_a_page(simulated: Material) -> None:
    found = content(simulated)
    assert found["groups"][0]["best"]["loss"] == simulated.groups[0].losses.min()
    assert {g["end"] for g in found["failures"]["groups"]} == {"failed", "lost"}
    steps = found["groups"][0]["best"]["steps"]
    assert steps[-1]["trial"] == found["groups"][0]["best"]["trial"]
    assert found["timeline"]["slice_count"] == sum(simulated.state.slice_ends.values())


def test_that_several_objectives_have_a_front_and_a_history_each() -> None:
    study = {"objectives": [{"name": "error", "reference": 9},
                            {"name": "gain", "direction": "maximize", "reference": 0}]}  # fmt: skip
    events = [ev.run()]
    for n, values in enumerate([[3.0, 1.0], [2.0, 2.0], [4.0, 5.0], [5.0, 5.0]]):
        *begun, ended = done(n, values[0], ev.START + 60.0 * (n + 1))
        events += [*begun, {**ended, "values": values}]
    found = content(material(*events, study=study))
    assert [goal["maximise"] for goal in found["goals"]] == [False, True]
    (group,) = found["groups"]
    assert group["front"]["trial"] == [1, 2]
    assert group["front"]["values"] == [[2.0, 4.0], [2.0, 5.0]]
    assert group["front"]["others"] == {"trial": [0, 3], "values": [[3.0, 5.0], [1.0, 5.0]]}
    assert group["front"]["hypervolume"] == 2 * 2 + 5 * 5
    assert [h["best"]["trial"] for h in group["histories"]] == [[0, 1], [0, 1, 2]]
    assert found["facts"]["front"]["trials"] == [1, 2]


def test_that_a_study_of_one_loss_has_no_front() -> None:
    found = content(material(ev.run(), *done(0, 0.5, ev.START + 20)))
    assert found["goals"] == []
    assert (found["groups"][0]["front"], found["groups"][0]["histories"]) == (None, None)
