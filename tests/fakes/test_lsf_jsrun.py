"""jsrun of the fake LSF: resource sets, steps that wait, signals, exit codes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.conftest import MakeLsf
from tests.fakes.jobs import output, submit
from tests.fakes.lsf import FakeLsf
from tests.fakes.lsf.run import STEP_MARK, marked_processes
from tests.fakes.lsf.state import EXIT, RUN, Allocation, Job, Request
from tests.fakes.lsf.steps import Nodes, StepRefused, StepRequest, Steps, lay_out, place, read_step

SHOW = "echo $PMIX_RANK $FAKE_HOST $CUDA_VISIBLE_DEVICES : $FAKE_CORES"


def finish(lsf: FakeLsf, body: str, *options: str) -> list[str]:
    """Run a job to its end: the lines it wrote."""
    job = submit(lsf, body, *options)
    lsf.wait_state(job, "DONE", "EXIT")
    return output(lsf, job)


def test_that_tasks_run_on_compute_nodes_with_their_own_gpus(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(nodes=2, cpus=4, gpus=2)
    lines = finish(lsf, f"jsrun -n4 -r2 -a1 -c2 -g1 -b packed:2 sh -c '{SHOW}'", "-nnodes", "2")
    assert sorted(lines) == [
        "0 h01n01 0 : 0,1",
        "1 h01n01 1 : 2,3",
        "2 h01n02 0 : 0,1",
        "3 h01n02 1 : 2,3",
    ]


def test_that_ranks_know_their_world(lsf: FakeLsf) -> None:
    names = "$JSM_NAMESPACE_RANK $JSM_NAMESPACE_SIZE $JSM_NAMESPACE_LOCAL_RANK"
    body = f"jsrun -n2 -r1 -a2 -c2 sh -c 'echo {names} $OMPI_COMM_WORLD_RANK'"
    assert sorted(finish(lsf, body, "-nnodes", "2")) == ["0 4 0 0", "1 4 1 1", "2 4 0 2", "3 4 1 3"]


def test_that_mpi_variables_are_left_out_on_demand(lsf: FakeLsf) -> None:
    lines = finish(lsf, "jsrun -n1 --smpiargs=off sh -c 'env | grep -c OMPI_COMM'")
    assert lines == ["0"]


def test_that_steps_at_the_same_time_share_neither_cores_nor_gpus(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(nodes=1, cpus=4, gpus=2)
    body = f"""
    jsrun -n1 -c2 -g1 -b rs sh -c '{SHOW}; while [ ! -e stop ]; do sleep 0.05; done' &
    jsrun -n1 -c2 -g1 -b rs sh -c '{SHOW}; while [ ! -e stop ]; do sleep 0.05; done' &
    wait
    """
    job = submit(lsf, body)
    lsf.wait_for(lambda: len(output(lsf, job)) == 2, "both steps")
    (lsf.folder / "stop").touch()
    assert sorted(output(lsf, job)) == ["0 h01n01 0 : 0,1", "0 h01n01 1 : 2,3"]
    lsf.wait_state(job, "DONE")


def test_that_an_explicit_resource_file_names_hosts_hardware_threads_and_gpus(
    make_lsf: MakeLsf,
) -> None:
    lsf = make_lsf(nodes=2, cpus=4, gpus=2)
    (lsf.folder / "ranks.erf").write_text(
        "cpu_index_using: logical\noverlapping_rs: allow\n"
        "rank: 0: { host: 2; cpu: {4-11}; gpu: {1} }\nrank: 1: { host: 1; cpu: {0-3} }\n"
    )
    lines = finish(lsf, f"jsrun --erf_input ranks.erf sh -c '{SHOW}'", "-nnodes", "2")
    assert sorted(lines) == ["0 h01n02 1 : 1,2", "1 h01n01 : 0"]


def test_that_a_step_that_does_not_fit_waits_until_it_does(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(nodes=1, cpus=4, gpus=1)
    body = """
    jsrun -n1 -g1 sh -c 'echo first; while [ ! -e stop ]; do sleep 0.05; done; echo over' &
    while [ ! -s out.$LSB_JOBID ]; do sleep 0.05; done
    jsrun -n1 -g1 echo second &
    jsrun -n1 -g0 echo beside
    touch stop
    wait
    """
    assert finish(lsf, body) == ["first", "beside", "over", "second"]


def test_that_a_step_that_can_never_fit_fails_at_once(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(nodes=1, cpus=4, gpus=1)
    lines = finish(lsf, "jsrun -n2 -g1 true 2>&1; echo $?")
    assert "do not fit" in lines[0] and lines[1] == "1"


def test_that_a_killed_jsrun_takes_its_tasks_along_and_frees_their_room(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(nodes=1, cpus=4, gpus=1)
    body = """
    jsrun -n1 -g1 sh -c 'echo $FAKE_LSF_STEP; touch up; sleep 300' &
    while [ ! -e up ]; do sleep 0.05; done
    kill -9 $!
    jsrun -n1 -g1 echo free
    while [ ! -e stop ]; do sleep 0.05; done
    """
    job = submit(lsf, body)
    lsf.wait_for(lambda: output(lsf, job)[1:] == ["free"], "the second step")
    assert not marked_processes(STEP_MARK, output(lsf, job)[0])
    (lsf.folder / "stop").touch()
    lsf.wait_state(job, "DONE")


def test_that_a_waiting_step_that_is_given_up_takes_nothing() -> None:
    async def scene() -> None:
        request = Request(queue="batch", explicit_queue=False)
        job = Job(1, request, "/", {}, 0.0, state=RUN, runs=1)
        job.allocation = Allocation({"a": 4}, {"a": [0]})
        steps = Steps(cpus=4, gpus=1)
        step = read_step(["-n1", "-g1", "true"])
        first, _ = await steps.begin(job, step)
        waiting = [asyncio.create_task(steps.begin(job, step)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await steps.end(steps.nodes(job), first)
        number, tasks = await waiting[1]
        assert tasks[0]["gpus"] == (0,) and waiting[0].cancelled()
        await steps.end(steps.nodes(job), number)
        await steps.begin(job, step)
        last = asyncio.create_task(steps.begin(job, step))
        await asyncio.sleep(0)
        job.state = EXIT
        await steps.wake(job.id, job.runs)
        with pytest.raises(StepRefused, match="ended"):
            await last

    asyncio.run(scene())


def test_that_the_worst_task_gives_the_exit_code(lsf: FakeLsf) -> None:
    body = """
    jsrun -n4 sh -c 'exit 0'; echo $?
    jsrun -n4 sh -c 'exit $PMIX_RANK'; echo $?
    jsrun -n4 sh -c '[ $PMIX_RANK = 2 ] && kill -9 $$; exit 1'; echo $?
    """
    assert finish(lsf, body) == ["0", "3", "137"]


def test_that_a_command_that_is_not_there_is_an_error(lsf: FakeLsf) -> None:
    assert finish(lsf, "jsrun -n1 no_such_program 2>/dev/null; echo $?") == ["127"]


def test_that_output_goes_to_the_files_named(lsf: FakeLsf) -> None:
    task = "sh -c 'echo $GREETING; pwd >&2'"
    body = f"mkdir sub; jsrun -n1 -h sub -E GREETING=hello -o out.txt -k err.txt {task}"
    assert finish(lsf, body) == []
    assert (lsf.folder / "out.txt").read_text() == "hello\n"
    assert (lsf.folder / "err.txt").read_text() == f"{lsf.folder / 'sub'}\n"


def test_that_an_immediate_step_does_not_keep_the_script_waiting(lsf: FakeLsf) -> None:
    body = """
    jsrun --immediate -n1 -o later.txt sh -c 'while [ ! -e go ]; do sleep 0.05; done; echo done'
    echo code $?; touch go
    while [ ! -s later.txt ]; do sleep 0.05; done
    """
    assert finish(lsf, body) == ["code 0"]
    assert (lsf.folder / "later.txt").read_text() == "done\n"


def test_that_signals_to_a_job_reach_its_tasks_through_jsrun(lsf: FakeLsf) -> None:
    task = 'trap "echo saved; exit 7" USR2; echo ready; while :; do sleep 0.05; done'
    body = f"trap : USR2\njsrun -n1 sh -c '{task}' & wait; wait; echo script over"
    job = submit(lsf, body, "-W", "1")
    ended = lsf.wait_state(job, "EXIT")
    assert output(lsf, job) == ["ready", "saved", "script over"]
    assert ended["reason"] == "TERM_RUNLIMIT"


def test_that_steps_die_with_their_job(lsf: FakeLsf) -> None:
    body = """
    jsrun -n2 sh -c 'trap "" INT TERM USR2; echo $FAKE_LSF_STEP; touch up; sleep 300' &
    while [ ! -e up ]; do sleep 0.05; done
    """
    (mark, *_) = finish(lsf, body)
    lsf.wait_for(lambda: not marked_processes(STEP_MARK, mark), "the tasks to be gone")


def test_that_jsrun_works_only_on_the_batch_node_of_a_job(lsf: FakeLsf) -> None:
    outside = lsf.run("jsrun", "-n1", "true")
    assert outside.returncode == 1 and "only inside a job" in outside.stderr
    assert finish(lsf, "jsrun -n1 jsrun -n1 true 2>/dev/null; echo $?") == ["1"]


@pytest.mark.parametrize(
    "line", ["-x true", "-n", "-n0 true", "-b close true", "-d plane true", "-l far true", "-n1"]
)
def test_that_bad_jsrun_lines_are_refused(line: str) -> None:
    with pytest.raises(StepRefused, match="jsrun: "):
        read_step(line.split())


def test_that_all_cores_are_taken_when_no_number_of_sets_is_given() -> None:
    nodes = Nodes({"a": set(range(4))}, {"a": set()})
    step = read_step(["-c2", "true"])
    placed = place(step, nodes)
    assert placed is not None and len(placed) == 2


def test_that_cyclic_ranks_go_round_the_sets() -> None:
    nodes = Nodes({"a": {0, 1}, "b": {0, 1}}, {"a": set(), "b": set()})
    step = read_step(["-n2", "-r1", "-a2", "-c2", "-d", "cyclic", "true"])
    tasks = lay_out(step, place(step, nodes) or [])
    assert [task["host"] for task in tasks] == ["a", "b", "a", "b"]


SMALL = st.integers(1, 4)


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(
            StepRequest,
            command=st.just(("true",)),
            sets=st.integers(1, 6),
            tasks=SMALL,
            cores=SMALL,
            gpus=st.integers(0, 2),
            per_host=st.none() | SMALL,
        ),
        max_size=8,
    )
)
def test_that_placed_sets_are_whole_and_never_overlap(requests: list[StepRequest]) -> None:
    nodes = Steps(8, 3)._empty(["a", "b"])
    seen: set[tuple[str, str, int]] = set()
    for request in requests:
        placed = place(request, nodes)
        if placed is None:
            continue
        assert len(placed) == request.sets
        for chosen in placed:
            assert (len(chosen.cores), len(chosen.gpus)) == (request.cores, request.gpus)
            taken = {(chosen.host, "core", i) for i in chosen.cores}
            taken |= {(chosen.host, "gpu", i) for i in chosen.gpus}
            assert not taken & seen
            seen |= taken
            nodes.cores[chosen.host] -= set(chosen.cores)
            nodes.gpus[chosen.host] -= set(chosen.gpus)
