"""The placer: disjoint shares, whole nodes for large slices, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_hpo.model import Shape
from hpc_hpo.pilot.placement import KEPT_SHARE, PATIENCE, NodeShape, Placer

ONE_GPU = Shape(1, 1, 7, 1.0)
THREE_GPUS = Shape(3, 3, 7, 1.0)
TWO_NODES = Shape(12, 6, 7, 1.0)


class Room:
    """A placer over Summit nodes, with a clock."""

    def __init__(self, nodes: int) -> None:
        self.time = 0.0
        self.placer = Placer(NodeShape(42, 6, 2), lambda: self.time)
        for number in range(nodes):
            self.placer.add_node("0", f"n{number + 1}")

    def learn(self) -> None:
        """Let many slices of a second have run."""
        for key in range(1000):
            self.put(("short", key), ONE_GPU)
            self.time += 1.0
            self.placer.free(("short", key))

    def put(self, key: object, shape: Shape, **rest: object):
        """Place one slice; None when it has to wait."""
        found = self.placer.schedule([(key, shape, 1.0)], **rest)
        return found[0][1] if found else None


def test_that_a_slice_gets_cores_and_gpus_of_one_domain() -> None:
    room = Room(1)
    first, second = room.put("a", THREE_GPUS), room.put("b", ONE_GPU)
    assert first.nodes == (("n1", tuple(range(21)), (0, 1, 2)),)
    assert second.nodes == (("n1", tuple(range(21, 28)), (3,)),)
    assert room.put("c", THREE_GPUS) is None
    room.placer.free("b")
    assert room.put("c", THREE_GPUS).nodes[0][2] == (3, 4, 5)


def test_that_each_rank_has_cores_near_its_gpu_where_the_domains_are_in_no_order() -> None:
    placer = Placer(NodeShape(16, 4, 4, gpu_domains=(3, 2, 0, 1)), lambda: 0.0)
    placer.add_node("0", "n1")
    ((_, placement),) = placer.schedule([("a", Shape(4, 4, 4, 1.0), 1.0)])
    assert placement.nodes[0][1:] == (
        (12, 13, 14, 15, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7),
        (0, 1, 2, 3),
    )


def test_that_ranks_do_not_straddle_domains_where_a_core_of_the_first_is_kept() -> None:
    # Summit with trials of several ranks: 41 cores, six ranks of six.
    placer = Placer(NodeShape(41, 6, 2, first_core=1), lambda: 0.0)
    placer.add_node("0", "n1")
    ((_, placement),) = placer.schedule([("a", Shape(6, 6, 6, 1.0), 1.0)])
    cores = placement.nodes[0][1]
    assert cores == (*range(1, 19), *range(21, 39)), "21 is the second processor's first"


def test_that_small_slices_leave_whole_nodes_whole() -> None:
    room = Room(3)
    for key in range(6):
        assert room.put(key, ONE_GPU).nodes[0][0] == "n1"
    large = room.put("large", TWO_NODES)
    assert [name for name, _, _ in large.nodes] == ["n2", "n3"]
    assert all(cores == tuple(range(42)) for _, cores, _ in large.nodes)
    assert room.put("no", ONE_GPU) is None


def test_that_a_freed_node_goes_to_the_large_slice_although_small_ones_came_first() -> None:
    room = Room(2)
    room.put("before", TWO_NODES)
    waiting = [(n, ONE_GPU, 1.0) for n in range(3)] + [("large", TWO_NODES, 1.0)]
    assert room.placer.schedule(waiting) == []
    room.placer.free("before")
    assert [key for key, _ in room.placer.schedule(waiting)] == ["large"]


def test_that_an_overdue_large_slice_has_nodes_kept_for_it() -> None:
    room = Room(2)
    room.learn()
    for key in range(12):
        room.put(key, ONE_GPU)
    large = [("large", TWO_NODES, 1.0)]
    assert room.placer.schedule(large) == []
    room.time += PATIENCE + 1
    ended = 0
    for key in range(12):
        room.placer.free(key)
        ended += 1
        started = room.placer.schedule([(f"new {key}", ONE_GPU, 0.0), *large])
        if started:
            break
    assert [key for key, _ in started] == ["large"] and ended == 12


def test_that_no_node_is_kept_for_a_slice_that_may_not_go_there() -> None:
    room = Room(2)
    room.learn()
    for key in range(12):
        room.put(key, ONE_GPU)
    waiting = [("large", TWO_NODES, 1.0), ("small", ONE_GPU, 1.0)]
    assert room.placer.schedule(waiting) == []
    room.time += PATIENCE + 1
    room.placer.free(0)
    # The block ends too soon for the large one, whatever becomes free.
    started = room.placer.schedule(
        waiting,
        allowed=lambda key, block, node: key != "large",
        usable=lambda key, block, node: key != "large",
    )
    assert [key for key, _ in started] == ["small"]


def test_that_overdue_slices_keep_a_few_nodes_only() -> None:
    room = Room(40)
    room.learn()
    for key in range(240):
        room.put(key, ONE_GPU)
    large = [(f"large {n}", TWO_NODES, 1.0) for n in range(20)]
    room.placer.schedule(large)
    room.time += 10.0
    for node in range(40):
        room.placer.free(6 * node)  # one GPU on each node
    small = [(f"small {n}", ONE_GPU, 1.0) for n in range(40)]
    started = room.placer.schedule([*large, *small])
    assert len(started) == 40 - KEPT_SHARE * 40


def test_that_an_exclusive_slice_is_alone_on_its_nodes() -> None:
    room = Room(2)
    alone = Shape(1, 1, 7, 1.0, exclusive=True)
    assert room.put("small", ONE_GPU).nodes[0][0] == "n1"
    assert room.put("alone", alone).nodes[0][0] == "n2"
    assert room.put("other", alone) is None
    for key in range(5):
        assert room.put(key, ONE_GPU).nodes[0][0] == "n1"
    assert room.put("full", ONE_GPU) is None
    room.placer.free("alone")
    assert room.put("full", ONE_GPU).nodes[0][0] == "n2"


def test_that_a_slice_goes_only_where_it_is_allowed_and_never_over_two_blocks() -> None:
    room = Room(1)
    room.placer.add_node("1", "n1")
    assert room.put("wide", TWO_NODES) is None
    found = room.put("a", ONE_GPU, allowed=lambda key, block, node: block == "1")
    assert found.block == "1"


def test_that_a_node_that_comes_back_is_empty_whatever_ran_there() -> None:
    room = Room(1)
    room.put("lost", THREE_GPUS)
    room.placer.remove_node("0", "n1")
    assert room.put("a", ONE_GPU) is None
    room.placer.add_node("0", "n1")
    assert room.put("a", TWO_NODES) is None
    assert room.put("b", Shape(6, 6, 7, 1.0)) is not None
    room.placer.free("lost")
    assert room.put("c", ONE_GPU) is None, "what the lost one held is not free twice"


SHAPES = st.sampled_from(
    [ONE_GPU, THREE_GPUS, TWO_NODES, Shape(2, 1, 42), Shape(4, 2, 3, 0.5), Shape(1),
     Shape(1, 1, 1, 0, True)]
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), SHAPES),
        st.tuples(st.just("end"), st.integers(0, 30)),
        st.tuples(st.just("lose"), st.integers(1, 4)),
        st.tuples(st.just("back"), st.integers(1, 4)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_that_no_two_slices_ever_share_a_core_or_a_gpu(steps: list) -> None:
    room = Room(4)
    waiting: dict[int, Shape] = {}
    running: dict[int, Shape] = {}
    lost: set[tuple[int, str]] = set()
    for number, (what, value) in enumerate(steps):
        room.time += 1.0
        if what == "come":
            waiting[number] = value
        elif what == "end" and running:
            key = sorted(running)[value % len(running)]
            room.placer.free(key)
            del running[key]
        elif what == "lose":
            room.placer.remove_node("0", f"n{value}")
            lost |= {(key, f"n{value}") for key in running}
        elif what == "back":
            room.placer.add_node("0", f"n{value}")
        queue = [(key, shape, 1.0) for key, shape in waiting.items()]
        for key, placement in room.placer.schedule(queue):
            shape = running[key] = waiting.pop(key)
            assert len({name for name, _, _ in placement.nodes}) == shape.nodes
            for _, cores, gpus in placement.nodes:
                assert (len(cores), len(gpus)) == (shape.node_cores, shape.node_gpus)
        used: Counter[tuple] = Counter()
        for key, placement in room.placer.running.items():
            for name, cores, gpus in placement.nodes:
                if (key, name) not in lost:
                    used.update((name, "core", core) for core in cores)
                    used.update((name, "gpu", gpu) for gpu in gpus)
        assert all(count == 1 for count in used.values())
        indexes = [placement.index for placement in room.placer.running.values()]
        assert len(set(indexes)) == len(indexes)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([ONE_GPU, THREE_GPUS]), min_size=5, max_size=40), SHAPES)
def test_that_no_slice_waits_for_ever_behind_a_stream_of_others(
    kinds: list[Shape], shape: Shape
) -> None:
    room = Room(4)
    waiting = {("stream", n): kinds[n % len(kinds)] for n in range(30)}
    room.placer.schedule([(key, s, 0.0) for key, s in waiting.items()])
    waiting = {key: s for key, s in waiting.items() if key not in room.placer.running}
    waiting["it"] = shape
    for number in range(30, 400):
        room.time += 1.0
        oldest = next(iter(room.placer.running))
        room.placer.free(oldest)
        waiting["stream", number] = kinds[number % len(kinds)]
        for key, _ in room.placer.schedule([(key, s, 0.0) for key, s in waiting.items()]):
            del waiting[key]
        if "it" not in waiting:
            return
    raise AssertionError("starved")
