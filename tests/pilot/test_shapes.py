"""From the keys of ``trial:`` to what a trial takes of a site's nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.model import Shape
from hpc_hpo.pilot.shapes import Misfit, Shapes, check_shapes, place_settings
from hpc_hpo.site import load_site
from hpc_hpo.study import Study, load_study

STUDY = """\
name: s
objective: objective.py:train
space: {px: {choice: [1, 2, 4]}, py: {int: [1, 2]}, x: {float: [0, 1]}}
budget: {trials: 4}
account: ABC123
"""


def study(folder: Path, trial: str, rest: str = "blocks: {nodes: 8, walltime: 1h}") -> Study:
    """A study with these keys under ``trial:``."""
    path = folder / "study.yaml"
    path.write_text(f"{STUDY}trial: {{{trial}}}\n{rest}\n")
    return load_study(path)


def shape(folder: Path, trial: str, site: str = "perlmutter") -> Shape:
    """The only shape of a study."""
    return Shapes(study(folder, trial), load_site(site)).all[0]


@pytest.mark.parametrize(
    ("trial", "nodes", "per_node"),
    [
        ("ranks: 1", 1, 1),
        ("ranks: 4, gpus_per_rank: 1", 1, 4),
        ("ranks: 8, gpus_per_rank: 1", 2, 4),
        ("ranks: 8, gpus_per_rank: 0.5", 1, 8),
        ("ranks: 12, gpus_per_rank: 0.3", 1, 12),
        ("ranks: 6, gpus_per_rank: 1", 2, 3),
        ("ranks: 8, nodes: 4", 4, 2),
        ("ranks: 8, ranks_per_node: 2", 4, 2),
        ("ranks: 128, cores_per_rank: 1", 2, 64),
    ],
)
def test_that_ranks_divide_as_many_on_a_node_as_fit(
    tmp_path: Path, trial: str, nodes: int, per_node: int
) -> None:
    found = shape(tmp_path, trial)
    assert (found.nodes, found.per_node) == (nodes, per_node)


@pytest.mark.parametrize(
    ("site", "trial", "words"),
    [
        (
            "summit", "ranks: 8, nodes: 1, gpus_per_rank: 1",
            "8 ranks with 1 GPU each do not fit a node of 6 GPUs; found 8; "
            "valid: 2 nodes of 4 or gpus_per_rank: 0.5",
        ),
        ("summit", "ranks: 2, nodes: 1, cores_per_rank: 30", "valid: 2 nodes of 1"),
        ("perlmutter", "ranks: 8, nodes: 3", "8 ranks do not divide among 3 nodes"),
        ("perlmutter", "ranks: 8, ranks_per_node: 3", "8 ranks do not divide among nodes of 3"),
        ("perlmutter", "gpus_per_rank: 1.5", "neither a part of a GPU nor whole GPUs"),
        ("perlmutter", "ranks: px * z", "unknown name 'z'"),
        ("perlmutter", "ranks: px * x", "parameter x takes any value of a range"),
        ("perlmutter", "ranks: px - 1", "px - 1 is 0"),
        ("perlmutter", "ranks: px / 2", "px / 2 is 0.5, not a whole number"),
        ("perlmutter", "ranks: 64, ranks_per_node: 4", "a trial takes 16 nodes"),
        ("local", "ranks: 4096", "site local is one machine"),
    ],
)  # fmt: skip
def test_that_what_does_not_fit_is_said_with_what_would(
    tmp_path: Path, site: str, trial: str, words: str
) -> None:
    rest = "blocks: {nodes: 8, walltime: 1h}" if site != "local" else ""
    errors = check_shapes(study(tmp_path, trial, rest), load_site(site))
    assert len(errors) == 1 and words in str(errors[0]), errors


def test_that_more_steps_than_a_batch_node_holds_are_refused(tmp_path: Path) -> None:
    many = study(tmp_path, "ranks: 2", "blocks: {nodes: 80, walltime: 1h}")
    (error,) = check_shapes(many, load_site("summit"))
    assert "1600 trials of several ranks" in str(error) and "1000 steps" in str(error)


def test_that_an_expression_makes_a_shape_of_each_point(tmp_path: Path) -> None:
    shapes = Shapes(study(tmp_path, "ranks: px * py, gpus_per_rank: 1"), load_site("perlmutter"))
    assert [s.ranks for s in shapes.all] == [1, 2, 4, 8] and shapes.mixed
    assert shapes.of({"px": 4, "py": 2, "x": 0.5}) == Shape(8, 4, 1, 1.0)
    assert [shapes.width(s) for s in shapes.all] == [1, 2, 4, 8]
    assert shapes.per_node == 4 and shapes.steps(8) == 16


def test_that_a_constraint_keeps_out_sizes_that_no_point_has(tmp_path: Path) -> None:
    limited = study(tmp_path, "ranks: px * py", "constraint: px * py <= 2")
    assert [s.ranks for s in Shapes(limited, load_site("perlmutter")).all] == [1, 2]


def test_that_a_point_without_a_parameter_has_no_shape(tmp_path: Path) -> None:
    shapes = Shapes(study(tmp_path, "ranks: px * py"), load_site("perlmutter"))
    with pytest.raises(ValueError, match="py is not part of this point"):
        shapes.of({"px": 2})


def test_that_the_pilot_keeps_a_core_where_jsrun_starts_ranks(tmp_path: Path) -> None:
    summit = load_site("summit")
    one = Shapes(study(tmp_path, "cores_per_rank: 7, gpus_per_rank: 1"), summit)
    assert one.per_node == 6 and place_settings(one, summit)["first_core"] == 0
    several = Shapes(study(tmp_path, "ranks: 6, cores_per_rank: 6"), summit)
    facts = place_settings(several, summit)
    assert (facts["cores"], facts["first_core"]) == (41, 1)
    with pytest.raises(Misfit, match="node of 41 cores"):
        Shapes(study(tmp_path, "ranks: 6, nodes: 1, cores_per_rank: 7"), summit)


def test_that_trials_may_share_cores_when_told_how_many_run_on_a_node(tmp_path: Path) -> None:
    crowd = study(tmp_path, "ranks: 4", "blocks: {workers_per_node: 32, nodes: 1}")
    shapes = Shapes(crowd, load_site("perlmutter"))
    assert shapes.per_node == 32 and shapes.cores == 128
    assert place_settings(shapes, load_site("perlmutter"))["bind"] is False
