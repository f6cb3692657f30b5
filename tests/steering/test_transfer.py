"""What segments take from one another."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.optimizers.registry import create
from hpc_hpo.space import Space
from hpc_hpo.steering.search import Search
from hpc_hpo.steering.transfer import Neighbours, pioneers
from tests.steering.test_changes import Asked
from tests.steering.test_loop import completed
from tests.steering.test_portfolio import points_of, steer

SPACE = Space.parse({"x": {"float": [0.0, 1.0]}})
TABLE = {f"p{p}_e{e}": {"pid": p, "eta": e} for p in (22, 11, 211) for e in range(5)}


def family(trials=8, fit=lambda point: point):
    """Searches of segments whose best x moves a little with eta."""

    def make(name):
        return lambda again: create("random", SPACE, list(TABLE).index(name), budget=trials)

    return [
        Search(name, trials, make(name), values=values, fit=fit) for name, values in TABLE.items()
    ]


def execute(request):
    eta = int(request["segment"]["name"].split("_e")[1])
    return completed(request, abs(request["point"]["x"] - 0.1 * eta))


def knowing(*names, count=3):
    neighbours = Neighbours(TABLE, count)
    for name in names:
        neighbours.learned(name)
    return neighbours


def test_that_the_nearest_in_eta_of_the_same_particle_come_first():
    known = knowing(*TABLE)
    assert set(known.nearest("p22_e2")[:2]) == {"p22_e1", "p22_e3"}
    assert known.nearest("p22_e0") == ["p22_e1", "p22_e2", "p22_e3"]


def test_that_particle_codes_are_kinds_and_not_a_scale():
    known = knowing("p11_e2", "p211_e2")
    assert set(known.nearest("p22_e2")) == {"p11_e2", "p211_e2"}
    near, far = known._at[[0, 5]] - known._at[[10, 10]]
    assert abs((near**2).sum() - (far**2).sum()) < 1e-12


def test_that_only_segments_that_have_learned_are_asked_and_none_asks_itself():
    assert knowing().nearest("p22_e0") == []
    assert knowing("p22_e0").nearest("p22_e0") == []
    assert knowing("p22_e0", "p211_e4").nearest("p22_e1") == ["p22_e0", "p211_e4"]
    known = knowing("p22_e0")
    known.forgotten("p22_e0")
    assert known.nearest("p22_e1") == []


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.dictionaries(
            st.sampled_from("kl"), st.one_of(st.integers(-9, 9), st.text("xy", max_size=1))
        ),
        min_size=2,
    )
)
def test_that_any_values_can_be_compared(values):
    known = Neighbours(values, 2)
    for name in values:
        known.learned(name)
    for name in values:
        found = known.nearest(name)
        assert len(found) == min(2, len(values) - 1) and name not in found


def test_that_a_few_go_ahead_evenly():
    assert len(pioneers(list(TABLE))) == 4
    assert len(pioneers([str(i) for i in range(300)])) == 18
    assert pioneers(["a"]) == {"a"}


def test_that_without_transfer_nothing_is_taken(tmp_path):
    _, state, _ = steer(tmp_path, family(), execute)
    assert all(trial.like is None for trial in state.trials.values())


def test_that_segments_begin_with_best_points_of_the_nearest(tmp_path):
    reason, state, _ = steer(tmp_path, family(), execute, points=2)
    assert reason == "budget"
    taken = [t for t in state.trials.values() if t.like is not None]
    assert len(taken) >= 15, "most segments took something"
    for trial in taken:
        source = state.trials[trial.like]
        assert source.segment != trial.segment and source.point == trial.point
    assert max(Counter(t.segment for t in taken).values()) <= 2
    assert Counter(t.segment for t in state.trials.values()) == dict.fromkeys(TABLE, 8)
    for name in TABLE:
        assert len(set(points_of(state, name))) == 8, "no point twice in a segment"


def test_that_a_point_outside_a_segment_s_space_is_not_taken(tmp_path):
    _, state, _ = steer(tmp_path, family(fit=lambda point: None), execute, points=2)
    assert all(trial.like is None for trial in state.trials.values())


def test_that_what_was_taken_is_known_after_a_restart(tmp_path):
    turns = iter(range(10_000))
    reason = ""
    while reason != "budget":
        begun = next(turns)
        reason, state, _ = steer(
            tmp_path, family(), execute, points=2,
            stop=lambda begun=begun: "now" if next(turns) > begun + 9 else "",
        )  # fmt: skip
    taken = Counter(t.segment for t in state.trials.values() if t.like is not None)
    assert taken and max(taken.values()) <= 2
    assert Counter(t.segment for t in state.trials.values()) == dict.fromkeys(TABLE, 8)


def test_that_a_segment_that_is_added_learns_from_those_that_are_done(tmp_path):
    requests = Asked()
    requests.search = lambda name: Search(
        name, 4, lambda again: create("random", SPACE, 99, budget=4), values={"pid": 22, "eta": 0}
    )
    steer(tmp_path, family(), execute, points=2)
    requests.ask("add", "late_e0", spec={"name": "late_e0"})
    _, state, _ = steer(tmp_path, family(), execute, points=2, requests=requests)
    taken = [t.like for t in state.trials.values() if t.segment == "late_e0" and t.like is not None]
    assert state.best_of("p22_e0").id in taken
