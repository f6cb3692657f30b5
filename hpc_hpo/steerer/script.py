"""Batch scripts that a user can read, edit and submit by hand. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_hpo.pilot.launchers import JOB_START

#: How a file is submitted by hand, by scheduler; ``lsf-redirection`` where bsub reads its stdin.
SUBMIT_BY_HAND = {
    "lsf": "bsub THIS-FILE",
    "lsf-redirection": "bsub < THIS-FILE",
    "slurm": "sbatch THIS-FILE",
    "pbs": "qsub THIS-FILE",
}
#: The usual ending of a script's name, by scheduler.
ENDINGS = {"lsf": "lsf", "slurm": "slurm", "pbs": "pbs"}


@dataclass(frozen=True)
class SteeringScript:
    """What the script of a job that steers its study is made of.

    Attributes:
        name: the study's.
        by_hand: how to submit the file (see SUBMIT_BY_HAND).
        directives: whole lines for the scheduler.
        prepare: shell lines before Python starts: modules, worker_init.
        python: the interpreter that has hpc_hpo.
        study: path of the study file or folder.
        options: further options of ``hpc-hpo job`` with their values: the folder, the site.
        script: path of the script itself, which the job submits again; None = it does not.
        max_jobs: jobs of the chain at most.
    """

    name: str
    by_hand: str
    directives: Sequence[str]
    prepare: Sequence[str]
    python: str
    study: str
    options: Sequence[str]
    script: str | None
    max_jobs: int

    def text(self) -> str:
        """The script. Paths stand in the shell's part alone, quoted; never in a comment, where a
        newline would end it, nor in a directive, whose quotes each scheduler reads in its own way.
        """
        q = shlex.quote
        again, options = [], [q(word) for word in self.options]
        # Each option on a line with its value.
        options = [" ".join(options[i : i + 2]) for i in range(0, len(options), 2)]
        if self.script is not None:
            again = ["# This file, wherever you keep it: each job submits it again.",
                     f"SCRIPT={q(self.script)}"]  # fmt: skip
            options += ['--script "$SCRIPT"', f"--max-jobs {self.max_jobs}"]
        return "\n".join(
            [
                "#!/bin/bash",
                f"# Runs the study {self.name} inside this job: steering on its first node, trials",
                f"# on all of them. {self._what_then()}",
                "#",
                f"#   submit   {self.by_hand}",
                "#   look     hpc-hpo status STUDY; hpc-hpo logs -f STUDY",
                "#   end      hpc-hpo stop STUDY",
                *self.directives,
                "",
                f"export {JOB_START}=$(date +%s)",
                *self.prepare,
                "",
                "# The Python that hpc-hpo is installed in; the nodes must see it too.",
                f"PYTHON={q(self.python)}",
                f"STUDY={q(self.study)}",
                *again,
                "",
                " \\\n  ".join(['exec "$PYTHON" -m hpc_hpo.cli.main job "$STUDY"', *options]),
                "",
            ]
        )

    def _what_then(self) -> str:
        if self.script is None:
            return "This queue forbids chains: submit it again until it is done."
        return (
            "Each job submits the next one, which waits for it to end,\n"
            "# until the study is done or stopped, or has had its number of jobs."
        )


def prestage_script(name: str, python: str, study: str, options: Sequence[str]) -> str:
    """A script that brings a study's inputs into its folder; not a job.

    Args:
        name: the study's.
        python, study, options: as of SteeringScript.
    """
    q = shlex.quote
    words = " ".join(['"$STUDY"', *map(q, options)])
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Brings the inputs of the study {name} into its folder, then reads all of them and",
            "# compares their checksums. Run it once, where the network is and reading much is",
            "# welcome: on a data transfer node, or the login node; before the first job.",
            "set -eu",
            "",
            "# The Python that hpc-hpo is installed in.",
            f"PYTHON={q(python)}",
            f"STUDY={q(study)}",
            "",
            f'"$PYTHON" -m hpc_hpo.cli.main prestage {words}',
            f'"$PYTHON" -m hpc_hpo.cli.main prestage {words} --verify',
            "",
        ]
    )
