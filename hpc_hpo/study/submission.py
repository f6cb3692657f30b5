"""Submission files of ATLAS's ``phpo``, read as studies.

A file as ``phpo --loadJson`` takes it (panda-client 2.2.0, pandaclient/PhpoScript.py) becomes the
data of a study. Each of its keys is honoured, is told to mean nothing here, or is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.schema import one_of
from hpc_hpo.space import Space
from hpc_hpo.study.submission_keys import HONOURED, IDLE, MARKS, REFUSED, SANDBOX
from hpc_hpo.yamlio import Document


@dataclass
class Submission:
    """A submission file as a study.

    Attributes:
        study: the study's data.
        lines: key path of the study -> line of the submission that it comes from.
        notes: (key, what became of it) of keys that mean something else here, or nothing.
    """

    study: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)


def is_submission(path: Path) -> bool:
    """Whether a JSON file is a submission and not a study."""
    if path.suffix != ".json":
        return False
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # the study's reader says what is wrong with it
    return isinstance(data, dict) and any(key in data for key in MARKS)


def load_submission(path: Path) -> tuple[Document, Submission]:
    """A submission file as the document of a study; relative paths begin at its folder.

    Raises:
        InputErrors: keys that are unknown, refused or wrong, all of them.
        InputError: a file that it names cannot be read.
    """
    text = path.read_text()
    reader = _Reader(path, text, json.loads(text))
    found = reader.read()
    dumped = yaml.safe_dump(found.study, sort_keys=False, allow_unicode=True)
    return Document(found.study, str(path), dumped, found.lines), found


class _Reader:
    """Turns the keys of one file into those of a study."""

    def __init__(self, path: Path, text: str, data: Mapping[str, Any]) -> None:
        self.path, self.text = path, text
        # phpo takes null for "not given", and numbers in quotes.
        self.data = {k: _number(v) for k, v in data.items() if v is not None and v != ""}
        self.errors: list[InputError] = []
        self.out = Submission({})

    def read(self) -> Submission:
        self._judge_keys()
        study = self.out.study
        study["name"] = self._name()
        self._take("name", "outDS")
        self._command()
        self._evaluation()
        self._search()
        self._numbers()
        self._checkpoints()
        self._container()
        if self.errors:
            raise InputErrors(self.errors)
        return self.out

    # ---------------------------------------------------------------- small tools

    def line(self, key: str) -> int | None:
        """The line on which a key stands."""
        match = re.search(rf'"{re.escape(key)}"\s*:', self.text)
        return None if match is None else self.text.count("\n", 0, match.start()) + 1

    def wrong(self, key: str, problem: str, *, found: Any = None, valid: Any = None) -> None:
        """Note what is wrong with a key."""
        self.errors.append(
            InputError(
                problem, file=str(self.path), line=self.line(key), key=key, found=found, valid=valid
            )
        )

    def note(self, key: str, what: str) -> None:
        """Note what became of a key."""
        self.out.notes.append((key, what))

    def _take(self, where: str, key: str) -> None:
        """Remember which key of the submission a key of the study comes from."""
        line = self.line(key)
        if line is not None:
            self.out.lines[where] = line

    def text_of(self, key: str, default: str | None = None) -> str | None:
        """A key that is a text."""
        value = self.data.get(key, default)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        self.wrong(key, "wrong type", found=value, valid="a text")
        return default

    def count_of(self, key: str, default: int | None, least: int = 1) -> int | None:
        """A key that is a whole number."""
        value = self.data.get(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            valid = f"a whole number of at least {least}"
            self.wrong(key, "not such a number", found=value, valid=valid)
            return default
        return value

    def _judge_keys(self) -> None:
        known = [*HONOURED, *IDLE, *REFUSED]
        for key, value in self.data.items():
            if key in REFUSED:
                self.wrong(key, "this cannot be kept", found=value, valid=REFUSED[key])
            elif key in IDLE:
                if value is not False:
                    self.note(key, f"has no effect: {IDLE[key]}")
            elif key not in HONOURED:
                self.wrong(key, "unknown key", valid=one_of(key, known))

    # ---------------------------------------------------------------- parts of the study

    def _name(self) -> str:
        """The output dataset's name, or the file's, as a folder may be called."""
        given = (self.text_of("outDS") or self.path.stem).strip("/")
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", given)[-64:]
        return re.sub(r"^[^A-Za-z0-9]+", "", plain) or "study"

    def _command(self) -> None:
        line = self.text_of("evaluationExec")
        if line is None:
            self.wrong("evaluationExec", "this key is required", valid="the command of a payload")
            return
        # As on the grid: by a shell, which finds programs of the sandbox. Braces are the shell's.
        plain = line.replace("{", "{{").replace("}", "}}")
        script = f'export PATH="$PATH:."\n{plain}'
        self.out.study["command"] = ["/bin/sh", "-c", script]
        self.out.study["contract"] = "evaluation"
        self._take("command", "evaluationExec")

    def _evaluation(self) -> None:
        names = {
            "input": self.text_of("evaluationInput", "input.json"),
            "data": self.text_of("evaluationTrainingData", "input_ds.json"),
            "output": self.text_of("evaluationOutput", "output.json"),
            "meta": self.text_of("evaluationMeta"),
            "metrics": self.text_of("evaluationMetrics"),
            "load": self.text_of("checkPointToLoad"),
        }
        given = {name: value for name, value in names.items() if value is not None}
        self.out.study["evaluation"] = {**given, "sandbox": list(SANDBOX)}
        for name in given:
            key = {"data": "evaluationTrainingData", "load": "checkPointToLoad"}
            self._take(f"evaluation.{name}", key.get(name, f"evaluation{name.capitalize()}"))

    def _search(self) -> None:
        """Search space, segments, data, and what the steering command says."""
        spaces = self._spaces()
        data = self._training_data()
        spec = self.text_of("segmentSpecFile")
        if spec is None and isinstance(spaces, list):
            self.wrong("searchSpaceFile", "a list of spaces goes with segmentSpecFile")
        if spaces is None or self.errors:
            return
        self.out.study["space"] = spaces[0] if isinstance(spaces, list) else spaces
        self._take("space", "searchSpaceFile")
        if spec is not None:
            section: dict[str, Any] = {"file": spec, "folder": data or ""}
            if isinstance(spaces, list):
                section = {"list": self._segments_with_spaces(spec, spaces, data or "")}
            self.out.study["segments"] = section
            self._take("segments", "segmentSpecFile")
        elif data is not None:
            self.out.study["inputs"] = [{"name": "data", "source": data}]
            self._take("inputs", "trainingDS")
        self._steering()

    def _spaces(self) -> Any:
        """The search space, or one for each segment."""
        name = self.text_of("searchSpaceFile")
        if name is None:
            self.wrong(
                "searchSpaceFile", "this key is required: hpc_hpo chooses the points itself",
                valid="a JSON file beside this one",
            )  # fmt: skip
            return None
        content = self._read_json("searchSpaceFile", name)
        file = str(self.path.parent / name)
        if isinstance(content, dict):
            self._check_space(content, file, "space")
            return content
        if not isinstance(content, list) or not content:
            if content is not None:
                self.wrong("searchSpaceFile", f"{file} holds no search space", found=content)
            return None
        spaces = []
        for i, entry in enumerate(content):
            inner = entry.get("search_space", entry) if isinstance(entry, dict) else entry
            self._check_space(inner, file, f"[{i}]")
            spaces.append(inner)
        return spaces

    def _check_space(self, spec: Any, file: str, key: str) -> None:
        try:
            Space.parse(spec, file=file, key=key)
        except InputErrors as error:
            self.errors += error.errors

    def _read_json(self, key: str, name: str) -> Any:
        file = self.path.parent / name
        try:
            return json.loads(file.read_bytes())
        except OSError as error:
            self.wrong(key, f"{file} cannot be read: {error.strerror}")
        except (ValueError, RecursionError) as error:
            self.wrong(key, f"{file} is not valid JSON: {error}")
        return None

    def _training_data(self) -> str | None:
        """The source of the training data: a path, a URL, or the folder of a dataset's name."""
        given = self.text_of("trainingDS")
        if given is None:
            return None
        scoped = given.rstrip("/")
        if "://" in scoped or "/" in scoped or (self.path.parent / scoped).exists():
            return scoped
        name = scoped.rpartition(":")[2]
        # `rucio download SCOPE:NAME` makes a folder that is called NAME.
        self.note(
            "trainingDS", f"its files are expected in the folder {name}, as rucio leaves them"
        )
        return name

    def _segments_with_spaces(
        self, name: str, spaces: list[dict[str, Any]], folder: str
    ) -> list[dict[str, Any]]:
        listed = self._read_json("segmentSpecFile", name)
        if not isinstance(listed, list) or len(listed) != len(spaces):
            count = str(len(listed)) if isinstance(listed, list) else None
            self.wrong(
                "searchSpaceFile", "there must be as many search spaces as segments",
                found=len(spaces), valid=count,
            )  # fmt: skip
            return []
        entries = []
        for segment, space in zip(listed, spaces, strict=True):
            files = segment.get("files") if isinstance(segment, dict) else None
            if not files or not isinstance(segment.get("name"), str):
                self.wrong(
                    "segmentSpecFile", "an entry without name or files", found=segment,
                    valid='[{"name": "a", "files": ["f"]}]',
                )  # fmt: skip
                continue
            names = ["data"] if len(files) == 1 else [f"data_{n}" for n in range(1, len(files) + 1)]
            sources = [f"{folder.rstrip('/')}/{file}" if folder else file for file in files]
            absent: dict[str, Any] = dict.fromkeys(spaces[0].keys() - space.keys())
            entries.append(
                {
                    "name": segment["name"],
                    "space": {**space, **absent},
                    "inputs": [
                        {"name": n, "source": s} for n, s in zip(names, sources, strict=True)
                    ],
                }
            )
        return entries

    def _steering(self) -> None:
        """The optimiser and the seed of a steering command that is ours."""
        line = self.text_of("steeringExec")
        if line is None:
            return
        if "hpc-hpo steer" not in line:
            self.note("steeringExec", "has no effect: steering is done by hpc_hpo itself")
            return
        named = re.search(r"--optimizer[ =]+(?:'(\{.*?\})'|([A-Za-z_]\w*))", line)
        seed = re.search(r"--seed[ =]+(\d+)", line)
        if named:
            name = named[2] or _json_or_none(named[1])
            if name is None:
                self.wrong("steeringExec", "--optimizer is not valid JSON", found=named[1])
            else:
                self.out.study["optimizer"] = name
        if seed:
            self.out.study["seed"] = int(seed[1])
        self.note("steeringExec", "its --optimizer and --seed are kept; nothing of it is run")

    def _numbers(self) -> None:
        most = self.count_of("maxPoints", 10) or 10
        parallel = self.count_of("nParallelEvaluation", 1)
        self.out.study["budget"] = {"trials": most, "parallel": parallel}
        self._take("budget.trials", "maxPoints")
        self._take("budget.parallel", "nParallelEvaluation")
        jobs = self.count_of("maxEvaluationJobs", None)
        if jobs is not None:
            attempts = max(1, -(-jobs // most))
            self.out.study.setdefault("trial", {})["max_attempts"] = attempts
            self.note("maxEvaluationJobs", f"as trial.max_attempts: {attempts} for each point")
        self._architecture()

    def _architecture(self) -> None:
        text = self.text_of("architecture")
        if text is None:
            return
        cpu, _, gpu = text.partition("&")
        if gpu.strip():
            self.out.study.setdefault("trial", {})["gpus_per_rank"] = 1
            self.note("architecture", f"as trial.gpus_per_rank: 1 ({gpu.strip()} is the site's)")
        if cpu.strip("# *"):
            self.note("architecture", f"{cpu.strip()} has no effect: the site decides")

    def _checkpoints(self) -> None:
        files = self.text_of("checkPointToSave")
        minutes = self.count_of("checkPointInterval", 5)
        section: dict[str, Any] = {"every": f"{minutes}m"}
        if files is not None:
            names = [name.strip().removeprefix("./").rstrip("/") for name in files.split(",")]
            section["files"] = [name for name in names if name]
            self._take("checkpoint.files", "checkPointToSave")
        self.out.study["checkpoint"] = section

    def _container(self) -> None:
        image = self.text_of("evaluationContainer")
        if image is not None:
            self.out.study["container"] = {"image": image, "runtime": "apptainer"}
            self._take("container.image", "evaluationContainer")


def _number(value: Any) -> Any:
    """A whole number in quotes as a number, as phpo takes it."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*[0-9]+\s*", value) else value


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def as_yaml(found: Submission, path: Path, say: Callable[[str], None]) -> str:
    """The study of a submission as the text of a study.yaml; `say` gets each note."""
    head = [f"# From {path.name}, as phpo --loadJson takes it."]
    for key, what in found.notes:
        say(f"{key} {what}")
        head.append(f"# {key} {what}")
    body = yaml.safe_dump(found.study, sort_keys=False, allow_unicode=True, width=100)
    return "\n".join(head) + "\n" + body
