"""Site files: shipped ones, the user's own, and those that extend another."""

from __future__ import annotations

import configparser
import os
import platform
import re
from pathlib import Path

import pytest

import hpc_hpo.site.load
from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.site import (
    Bin,
    CpuLimit,
    Heartbeat,
    Node,
    Queue,
    Site,
    Submit,
    Warn,
    list_sites,
    load_site,
    sites_folder,
)
from hpc_hpo.yamlio import load_yaml

ROOT = Path(__file__).parents[1]


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_that_the_local_site_is_this_machine() -> None:
    site = load_site("local")
    assert (site.name, site.scheduler, site.launcher) == ("local", "local", "none")
    assert site.arch == platform.machine()
    assert site.node.cores == len(os.sched_getaffinity(0))
    assert (site.node.gpus, site.address, site.worker_init) == (0, "127.0.0.1", "")
    assert (site.heartbeat.period, site.heartbeat.threshold) == (2.0, 6.0)
    assert (site.kill_grace, site.checkpoint_floor, site.poll) == (1.0, 0.5, 1.0)
    assert site.max_walltime is None


def test_that_two_keys_make_a_site(tmp_path: Path) -> None:
    write(tmp_path, "s.yaml", "name: mine\nscheduler: local\n")
    site = load_site("s.yaml", tmp_path)
    local = load_site("local")
    assert site.name == "mine"
    assert site.path == tmp_path / "s.yaml"
    assert site.model_copy(update={"name": "local"}).model_dump() == local.model_dump()


@pytest.mark.parametrize("name", list_sites())
def test_that_every_shipped_site_loads_under_its_own_name(name: str) -> None:
    assert load_site(name).name == name


def test_that_a_site_extends_another_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "extends: local\nname: base\nnode: {cores: 4, memory: 8GB}\n")
    write(tmp_path, "top.yaml", "extends: ./base.yaml\nname: top\nnode: {gpus: 2}\npoll: 5s\n")
    site = load_site("./top.yaml", tmp_path)
    assert (site.name, site.scheduler, site.poll) == ("top", "local", 5.0)
    assert (site.node.cores, site.node.gpus, site.node.memory) == (4, 2, 8 * 10**9)


def fault(folder: Path, text: str) -> InputError:
    write(folder, "s.yaml", text)
    with pytest.raises(InputError) as caught:
        load_site("s.yaml", folder)
    assert not isinstance(caught.value, InputErrors), str(caught.value)
    return caught.value


BASE = "name: s\nscheduler: local\n"


@pytest.mark.parametrize(
    ("text", "key", "line", "words"),
    [
        ("scheduler: local\n", "name", None, "required"),
        ("name: s\nscheduler: locl\n", "scheduler", 2, "did you mean 'local'"),
        (BASE + "nodes: {cores: 4}\n", "nodes", 3, "did you mean 'node'"),
        (BASE + "node: {cores: many}\n", "node.cores", 3, "auto"),
        (BASE + "node: {cores: 0}\n", "node.cores", 3, "at least 1"),
        (BASE + "node: {memory: 512}\n", "node.memory", 3, "512GB"),
        (BASE + "poll: 0s\n", "poll", 3, "longer than nothing"),
        (BASE + "kill_grace: 2\n", "kill_grace", 3, "2s"),
        (BASE + "heartbeat: {threshold: 2s}\n", "heartbeat.threshold", 3, "period"),
        (BASE + "heartbeat: {period: 9s}\n", "heartbeat.threshold", 3, "period"),
        (BASE + "extends: [a]\n", "extends", 3, "name or path"),
        (BASE + "extends: locall\n", "extends", 3, "did you mean 'local'"),
        (BASE + "extends: ./s.yaml\n", "extends", 3, "circle"),
        ("- s\n", None, 1, "a site file is a mapping"),
    ],
)
def test_that_a_mistake_is_named_with_its_key_and_line(
    tmp_path: Path, text: str, key: str | None, line: int | None, words: str
) -> None:
    error = fault(tmp_path, text)
    assert (error.key, error.line) == (key, line), str(error)
    assert words in str(error)
    assert str(error).startswith(str(tmp_path / "s.yaml"))


def test_that_a_mistake_in_an_extended_file_is_named_there(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", "scheduler: local\n\npoll: 3\n")
    error = fault(tmp_path, "extends: ./base.yaml\nname: s\n")
    assert (error.file, error.line, error.key) == (str(base), 3, "poll")


def test_that_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "s.yaml", "name: s\nscheduler: x\npoll: 3\n")
    with pytest.raises(InputErrors) as caught:
        load_site("s.yaml", tmp_path)
    assert [e.key for e in caught.value.errors] == ["scheduler", "poll"]


def test_that_an_unknown_site_is_told_where_it_was_named() -> None:
    study = load_yaml("name: x\nsite: locl\n", "study.yaml")
    with pytest.raises(InputError, match=r"study.yaml:2: site: unknown site; found 'locl'"):
        load_site("locl", named_in=study)
    with pytest.raises(InputError, match="did you mean 'local'"):
        load_site("locl")


def test_that_a_missing_site_file_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml: there is no such file"):
        load_site("./none.yaml", tmp_path)


def test_that_sites_are_found_inside_an_installed_package_and_beside_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "hpc_hpo"
    monkeypatch.setattr(hpc_hpo.site.load, "_PACKAGE", package)
    beside, inside = tmp_path / "site_configs", package / "site_configs"
    beside.mkdir()
    write(beside, "here.yaml", BASE)
    assert (sites_folder(), list_sites()) == (beside, ["here"])
    inside.mkdir(parents=True)
    write(inside, "b.yaml", BASE)
    write(inside, "a.yaml", BASE)
    assert (sites_folder(), list_sites()) == (inside, ["a", "b"])


def test_that_setup_names_every_package_and_ships_the_sites() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = set(setup["options"]["packages"].split())
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in (ROOT / "hpc_hpo").rglob("__init__.py")
    }
    assert named == found | {"hpc_hpo.site_configs"}
    assert "hpc_hpo.site_configs = site_configs" in setup["options"]["package_dir"]
    assert setup["options.package_data"]["hpc_hpo.site_configs"] == "*.yaml"


def test_that_the_page_on_sites_explains_every_key() -> None:
    page = (ROOT / "docs" / "sites.md").read_text()
    explained = set(re.findall(r"^\| `([\w.\[\]]+)` \|", page, re.MULTILINE))
    keys = {"extends", *Site.model_fields}
    for section, prefix in (
        (Submit, "submit"),
        (Node, "node"),
        (Heartbeat, "heartbeat"),
        (Warn, "warning"),
        (CpuLimit, "cpu_limit"),
        (Queue, "queues.NAME"),
        (Bin, "queues.NAME.bins[]"),
    ):
        keys |= {f"{prefix}.{key}" for key in section.model_fields}
    assert keys == explained


def test_that_the_page_s_example_of_an_own_site_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "sites.md").read_text()
    texts = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    write(tmp_path, "s.yaml", next(text for text in texts if "extends:" in text))
    site = load_site("s.yaml", tmp_path)
    assert (site.name, site.scheduler, site.default_queue) == ("mycluster", "slurm", "gpu")
    assert "interface" not in site.unverified
