"""Tables that start_from cannot take: refused, in place of giving nothing without a word."""

import pytest
from click.testing import CliRunner

from hpc_hpo.cli.main import cli
from hpc_hpo.errors import InputError
from tests.steering.test_start import completed, folder_of, run, started, write

TWO = [{"name": "error"}, {"name": "gain", "direction": "maximize"}]


def execute(request):
    outcome = completed(request)
    return outcome | {"values": [outcome["loss"], outcome["loss"] ** 2]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"t.csv: the table is empty; found 'no header'; valid: a line that names"),
        ("\n", r"t.csv: the table is empty"),
        ("x,act,loss\n", r"t.csv:1: a header alone.*found 'x, act, loss'; valid: a line for each"),
        (
            "x,x,act,loss\n0.1,0.2,relu,1\n",
            r"t.csv:1: x: a column is there more than once; found '2 columns.*valid: each column",
        ),
        (
            "point.x,point.act,point.x,loss,rank\n0.1,relu,0.2,1,1\n",
            r"t.csv:1: point.x: a column is there more than once",
        ),
    ],
)
def test_that_a_table_without_points_or_with_a_column_twice_is_refused(tmp_path, text, words):
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=words):
        started(tmp_path, {"csv": str(table)})


def exported(tmp_path, objectives):
    path = write(tmp_path, "old", **({"objectives": objectives} if objectives else {}))
    run(path, execute if objectives else completed)
    table = str(tmp_path / "old.csv")
    arguments = ["export", str(folder_of(path)), "--format", "csv", "-o", table]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    return table


@pytest.mark.parametrize(
    ("theirs", "own", "found", "valid"),
    [
        (TWO, None, "error, gain", "one loss there, too"),
        (None, TWO, "one loss", "error, gain there, too"),
        (TWO, [TWO[0], {"name": "time"}], "error, gain", "error, time there, too"),
    ],
)
def test_that_a_table_of_other_objectives_is_refused_unless_its_best_are_evaluated(
    tmp_path, theirs, own, found, valid
):
    table, more = exported(tmp_path, theirs), {"objectives": own} if own else {}
    words = (
        rf"start_from\[0\].csv: its trials have other objectives; found '{found}'; valid: {valid}"
    )
    with pytest.raises(InputError, match=words):
        started(tmp_path, {"csv": table}, **more)
    start = started(tmp_path, {"csv": table, "take": "best", "best": 2}, **more)
    assert (len(start.queued[None]), start.told) == (2, {})


def test_that_a_table_of_the_same_objectives_is_told(tmp_path):
    table = exported(tmp_path, TWO)
    told = started(tmp_path, {"csv": table}, objectives=TWO).told[None]
    assert [given.loss for given in told] == [[g.point["x"], g.point["x"] ** 2] for g in told]
    assert len(told) == 6


def test_that_an_exported_table_needs_no_column_of_ranks(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("point.x,point.act,loss\n0.5,relu,1\n0.25,tanh,\n")
    start = started(tmp_path, {"csv": str(table)})
    assert [given.loss for given in start.told[None]] == [1.0]
    assert start.report[0].endswith("left out: 1 without a loss that counts")
