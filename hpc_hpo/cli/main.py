"""``hpc-hpo``: the table of commands, and how errors end them.

Imports nothing but click, so that ``--help`` answers at once on a slow file system; a command's
module is imported when it is run. A command returns None or its exit code.
"""

from __future__ import annotations

import os
import sys
import traceback
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from hpc_hpo import __version__
from hpc_hpo.errors import HpoError

#: name -> ("module:command", one line of help)
COMMANDS = {
    "init": ("hpc_hpo.cli.init:init", "Write a small study that runs as it is."),
    "check": ("hpc_hpo.cli.check:check", "Validate a study before anything runs."),
    "plan": ("hpc_hpo.cli.plan:plan", "Compare sizes of batch jobs, and recommend one."),
    "simulate": ("hpc_hpo.cli.simulate:simulate_command", "Simulate a study on a machine."),
    "sites": ("hpc_hpo.cli.sites:sites", "List the sites that have names, or show one."),
    "doctor": ("hpc_hpo.cli.doctor:doctor", "Look at a site as a first study will meet it."),
    "prestage": ("hpc_hpo.cli.prestage:prestage", "Bring the inputs into the study folder."),
    "run": ("hpc_hpo.cli.run:run", "Run a study, or go on with it."),
    "submit": ("hpc_hpo.cli.submit:submit", "Run a study after this session has ended."),
    "logs": ("hpc_hpo.cli.logs:logs", "Show what the steering process says."),
    "status": ("hpc_hpo.cli.status:status", "Show how a study stands."),
    "watch": ("hpc_hpo.cli.watch:watch", "Watch a study that runs elsewhere."),
    "stop": ("hpc_hpo.cli.stop:stop", "Ask a running study to checkpoint and stop."),
    "segment": ("hpc_hpo.cli.segment:segment", "List a study's segments, or change one."),
    "show": ("hpc_hpo.cli.show:show", "Show a trial, a block, a segment, or what failed."),
    "best": ("hpc_hpo.cli.best:best", "Show the best point, or print it for a script."),
    "diff": ("hpc_hpo.cli.diff:diff", "Show in which settings two studies differ."),
    "export": ("hpc_hpo.cli.export:export", "Write the results for other programs."),
    "report": ("hpc_hpo.cli.report:report", "Write a page with plots of a study."),
    "script": ("hpc_hpo.cli.script:script", "Print a batch script to edit and submit by hand."),
    "convert": ("hpc_hpo.cli.convert:convert", "Turn a submission of phpo into a study."),
    "evaluate": ("hpc_hpo.cli.evaluate:evaluate", "Evaluate one point of a payload of the grid."),
    "events": ("hpc_hpo.cli.events:events", "Evaluate points that Harvester has handed over."),
    "steer": ("hpc_hpo.cli.steer:steer", "New points for iDDS, over files."),
    "job": ("hpc_hpo.cli.job:job", "Run a study inside this batch job (for scripts)."),
}
#: As a shell reports a process ended by SIGINT.
INTERRUPTED = 130


class LazyGroup(click.Group):
    """Commands from COMMANDS, imported one by one, and the one place that reports errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            close = get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "valid: " + ", ".join(COMMANDS)
            ctx.fail(f"no command {cmd_name!r}; {hint}")
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table: click's own would import every command for its help.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
        except HpoError as error:
            click.echo(f"hpc-hpo: {error}", err=True)
            code = error.exit_code
        except KeyboardInterrupt:
            click.echo("hpc-hpo: interrupted", err=True)
            code = INTERRUPTED
        ctx.exit(code or 0)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hpc-hpo")
def cli() -> None:
    """Tune hyperparameters in batch jobs that end at their walltime.

    PATH is a study.yaml, or the folder that a study was run in.
    Begin with: hpc-hpo init my-study
    """


def main() -> int:
    """Entry point of ``hpc-hpo``; the exit code (docs/commands.md lists them)."""
    try:
        cli.main(prog_name="hpc-hpo")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
        click.echo(
            "hpc-hpo: this is a fault of the program, not of your input. "
            "The study's journal is kept: the same command may be run again.",
            err=True,
        )
        code = 1
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`| head`); Python's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
