"""Batch sites: what the shipped ones state, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.pilot.sources import check_shape
from hpc_hpo.site import Site, list_sites, load_site
from hpc_hpo.study import load_study

BATCH = [name for name in list_sites() if load_site(name).batch]
BASE = "name: s\nscheduler: slurm\ninterface: ib0\n"
H = 3600.0


def site_of(folder: Path, text: str) -> Site:
    (folder / "s.yaml").write_text(text)
    return load_site("s.yaml", folder)


def fault(folder: Path, text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        site_of(folder, text)
    assert not isinstance(caught.value, InputErrors), str(caught.value)
    return caught.value


def test_that_all_the_promised_sites_are_there() -> None:
    promised = {"summit", "ascent", "lassen", "lsf", "frontier", "perlmutter", "slurm", "polaris"}
    assert promised == set(BATCH)


def test_that_summit_is_as_its_guide_says() -> None:
    site = load_site("summit")
    assert (site.scheduler, site.submit.style, site.submit.size) == ("lsf", "file", "nodes")
    assert (site.launcher, site.arch, site.interface) == ("jsrun", "ppc64le", "ib0")
    assert (site.node.cores, site.node.smt, site.node.gpus) == (42, 4, 6)
    assert (site.network, site.requires) == (False, ("account",))
    assert site.cpu_limit is not None
    assert (site.cpu_limit.warn, site.cpu_limit.kill) == (4 * H, 8 * H)
    batch, killable, debug = (site.queues[name] for name in ("batch", "killable", "debug"))
    assert site.default_queue == "batch"
    assert (batch.max_eligible, batch.max_queued) == (4, 100)
    assert [(*b.nodes, b.walltime / H) for b in batch.bins] == [
        (1, 45, 2), (46, 91, 6), (92, 921, 12), (922, 2764, 24), (2765, 4608, 24)
    ]  # fmt: skip
    assert [b.preemptible_after for b in killable.bins] == [2 * H, 6 * H]
    assert (debug.max_queued, debug.chaining) == (1, False)


def test_that_ascent_is_a_small_summit() -> None:
    summit, ascent = load_site("summit"), load_site("ascent")
    assert ascent.node == summit.node
    assert [b.nodes for b in ascent.queues["batch"].bins] == [(1, 18)]
    assert ascent.queues["batch"].max_eligible == 4
    assert "queues" in ascent.unverified and "page_size" in ascent.unverified


def test_that_frontier_is_as_its_guide_says() -> None:
    site = load_site("frontier")
    assert (site.scheduler, site.launcher, site.node.cores) == ("slurm", "srun", 56)
    assert (site.node.gpus, site.node.gpu_vendor) == (8, "amd")
    assert site.node.gpu_domains == (3, 3, 1, 1, 0, 0, 2, 2)
    assert [(*b.nodes, b.walltime / H) for b in site.queues["batch"].bins] == [
        (1, 91, 2), (92, 183, 6), (184, 1881, 12), (1882, 5644, 12), (5645, 9472, 12)
    ]  # fmt: skip
    assert site.queues["extended"].max_running == 1


@pytest.mark.parametrize("name", BATCH)
def test_that_a_batch_site_has_manners(name: str) -> None:
    site = load_site(name)
    assert site.poll >= 30, "a shared scheduler is asked rarely"
    assert site.heartbeat.threshold < 60, "a lost node is noticed in under a minute"
    assert site.interface is not None


def test_that_batch_defaults_give_way_key_by_key(tmp_path: Path) -> None:
    site = site_of(tmp_path, BASE + "poll: 5s\nheartbeat: {period: 4s}\n")
    assert (site.poll, site.checkpoint_floor, site.kill_grace) == (5, 30, 10)
    assert (site.heartbeat.period, site.heartbeat.threshold) == (4, 30)


def test_that_a_site_without_queues_needs_none(tmp_path: Path) -> None:
    assert site_of(tmp_path, BASE).default_queue is None


def test_that_an_only_queue_is_the_default_and_two_need_a_mark(tmp_path: Path) -> None:
    assert site_of(tmp_path, BASE + "queues: {a: {}}\n").default_queue == "a"
    assert site_of(tmp_path, BASE + "queues: {a: {}, b: {}}\n").default_queue is None
    text = BASE + "queues: {a: {}, b: {default: true}}\n"
    assert site_of(tmp_path, text).default_queue == "b"


def test_that_an_own_site_overrides_keys_and_clears_their_doubts(tmp_path: Path) -> None:
    text = (
        "extends: summit\nname: mine\naddress: 127.0.0.1\nscratch: /data\n"
        "queues: {batch: {bins: [{nodes: [1, 4], walltime: 10m}]}}\n"
    )
    site = site_of(tmp_path, text)
    assert (site.address, site.interface) == ("127.0.0.1", "ib0")
    assert site.queues["batch"].max_queued == 100
    assert [(b.nodes, b.walltime) for b in site.queues["batch"].bins] == [((1, 4), 600)]
    assert "scratch" not in site.unverified
    assert "queues.debug.bins" in site.unverified


QUEUE = BASE + "queues:\n  a:\n"


@pytest.mark.parametrize(
    ("text", "key", "line", "words"),
    [
        ("name: s\nscheduler: slrm\n", "scheduler", 2, "did you mean 'slurm'"),
        ("name: s\nscheduler: slurm\n", "interface", None, "ib0"),
        (BASE + "launcher: jsrun\n", "launcher", 4, "none, srun, mpiexec"),
        (BASE + "submit: {style: redirection}\n", "submit.style", 4, "scheduler lsf"),
        (BASE + "submit: {sytle: file}\n", "submit.sytle", 4, "did you mean 'style'"),
        (BASE + "node: {gpu_vendor: amf}\n", "node.gpu_vendor", 4, "did you mean 'amd'"),
        (BASE + "node: {gpus: 2, gpu_domains: [0]}\n", "node.gpu_domains", 4, "2 numbers"),
        (BASE + "node: {gpus: 1, gpu_domains: [1]}\n", "node.gpu_domains", 4, "domains of 1 GPUs"),
        (BASE + "requires: [acount]\n", "requires", 4, "did you mean 'account'"),
        (BASE + "directives: ['#SBATCH -C gpu']\n", "directives", 4, "without #BSUB"),
        (BASE + "warning: {ahead: 1m}\n", "warning.signal", 4, "required"),
        (BASE + "cpu_limit: {warn: 8h, kill: 4h}\n", "cpu_limit.warn", 4, "at most 4h"),
        (BASE + "unverified: {nod: why}\n", "unverified.nod", 4, "no such key"),
        (BASE + "unverified: [node]\n", "unverified", 4, "mapping"),
        (BASE + "queues: [a]\n", "queues", 4, "mapping"),
        (QUEUE + "    max_eligble: 4\n", "queues.a.max_eligble", 6, "did you mean 'max_eligible'"),
        (QUEUE + "    max_queued: 0\n", "queues.a.max_queued", 6, "at least 1"),
        (
            QUEUE + "    bins: [{nodes: [1, 2], walltime: 2h, preempted_after: 1h}]\n",
            "queues.a.bins[0].preempted_after", 6, "did you mean 'preemptible_after'",
        ),
        (QUEUE + "    bins: [{nodes: 4, walltime: 2h}]\n", "queues.a.bins[0].nodes", 6, "[1, 45]"),
        (
            QUEUE + "    bins: [{nodes: [4, 1], walltime: 2h}]\n",
            "queues.a.bins[0].nodes", 6, "empty",
        ),
        (
            QUEUE + "    bins:\n    - {nodes: [1, 4], walltime: 2h}\n"
            "    - {nodes: [4, 8], walltime: 4h}\n",
            "queues.a.bins[1].nodes", 8, "above 4",
        ),
        (QUEUE + "    default: true\n  b: {default: true}\n", "queues.b.default", 7, "one default"),
        (
            "name: s\nscheduler: lsf\naddress: 1.2.3.4\nqueues: {a: {qos: b}}\n",
            "queues.a.qos", 4, "slurm",
        ),
        ("name: s\nscheduler: local\nqueues: {a: {}}\n", "queues", 3, "no queues"),
    ],
)  # fmt: skip
def test_that_a_mistake_in_a_batch_site_is_named_with_its_key_and_line(
    tmp_path: Path, text: str, key: str, line: int | None, words: str
) -> None:
    found = fault(tmp_path, text)
    assert (found.key, found.line) == (key, line), str(found)
    assert words in str(found)


def test_that_a_block_that_the_warning_would_fill_is_refused(tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text("def train(config, trial): return 1.0\n")
    text = (
        "name: brief\nobjective: objective.py:train\nspace: {x: {float: [0.0, 1.0]}}\n"
        "budget: {trials: 2}\naccount: ABC\nblocks: {walltime: WALLTIME}\n"
    )
    file = tmp_path / "study.yaml"
    file.write_text(text.replace("WALLTIME", "1m"))
    (problem,) = check_shape(load_study(file), load_site("summit"))
    assert "announced 1m ahead, which is the whole of this block" in str(problem)
    assert "blocks.walltime" in str(problem)
    file.write_text(text.replace("WALLTIME", "2m"))
    assert check_shape(load_study(file), load_site("summit")) == []
