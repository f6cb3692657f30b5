"""hpc-hpo sites: the list, and one site with its bins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hpc_hpo.site import list_sites, load_site

Command = Callable[..., Result]


def test_that_every_site_has_its_line(hpc_hpo: Command) -> None:
    done = hpc_hpo("sites")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines] == list_sites()
    (summit,) = [line for line in lines if "summit" in line]
    assert "lsf + jsrun" in summit and "6 GPUs" in summit and "ppc64le" in summit


def test_that_summit_is_shown_with_its_bins(hpc_hpo: Command) -> None:
    text = hpc_hpo("sites", "show", "summit").output
    assert "queue batch: default, at most 4 jobs eligible, at most 100 jobs in any state" in text
    assert "46 to 91 nodes      up to 6 h 00 min" in text
    assert "may be preempted after 2 h 00 min" in text
    assert "no chains of jobs" in text
    assert "bsub SCRIPT, sized by -nnodes N" in text
    assert "kills it at 8 h 00 min" in text


@pytest.mark.parametrize("name", list_sites())
def test_that_what_nobody_could_check_is_shown(hpc_hpo: Command, name: str) -> None:
    done = hpc_hpo("sites", "show", name)
    assert done.exit_code == 0
    site = load_site(name)
    assert ("\nunverified\n" in done.output) is bool(site.unverified)
    for key, reason in site.unverified.items():
        assert key in done.output and reason in done.output


def test_that_a_user_s_own_file_is_shown(hpc_hpo: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: lsf\nname: mine\naddress: 10.0.0.1\nmodules: [a, b]\nnode: {cores: 8}\n"
        "worker_init: |\n  one\n  two\nqueues: {q: {}}\nmax_walltime: 3h\npython: /opt/python\n"
    )
    text = hpc_hpo("sites", "show", file).output
    assert "bsub < SCRIPT, sized by -n SLOTS -R span[ptile=8]" in text
    assert "at 10.0.0.1" in text and "a, b" in text and "one; two" in text
    assert "no limit is known" in text and "3 h 00 min" in text and "/opt/python" in text


def test_that_slurm_s_options_are_shown(hpc_hpo: Command) -> None:
    assert "queue debug: -p batch, -q debug" in hpc_hpo("sites", "show", "frontier").output


def test_that_an_unknown_site_is_answered_with_the_nearest(hpc_hpo: Command) -> None:
    done = hpc_hpo("sites", "show", "sumit")
    assert done.exit_code == 2
    assert "did you mean 'summit'" in done.stderr
