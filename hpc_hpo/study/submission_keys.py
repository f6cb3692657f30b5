"""The keys of a ``phpo`` submission (panda-client 2.2.0), by what becomes of them."""

#: Files that phpo sends along, so that its payloads find them in their working directory.
SANDBOX = ["**/*.json", "**/*.py", "**/*.sh", "**/*.yaml"]
#: Keys that no study has: a file with one of them is a submission.
MARKS = ("evaluationExec", "evaluationContainer", "steeringExec", "searchSpaceFile", "loadJson")
_NO_GRID = "there is no grid here"
#: Keys that change nothing here, and why.
IDLE = {
    "steeringContainer": "steering is done by hpc_hpo itself",
    "nPointsPerIteration": "a point is asked for whenever a worker is free",
    "minUnevaluatedPoints": "a point is asked for whenever a worker is free",
    "maxPointsPerEvaluationJob": "a worker takes points as long as its block lasts",
    "site": "it names a site of the grid; a site of hpc_hpo is chosen with --site",
    **dict.fromkeys(
        ("official", "workingGroup", "vomsRoles", "noEmail", "intrSrv", "noSubmit", "python3"),
        _NO_GRID,
    ),
    **dict.fromkeys(("version", "verbose", "dumpJson"), "it is about phpo's own output"),
    **dict.fromkeys(("returnCode", "returnOut", "jediTaskID"), "it tells of an earlier submission"),
}
HONOURED = (
    "outDS",
    *("maxPoints", "nParallelEvaluation", "maxEvaluationJobs"),
    *("searchSpaceFile", "segmentSpecFile", "trainingDS"),
    *("evaluationContainer", "evaluationExec", "evaluationInput", "evaluationTrainingData"),
    *("evaluationOutput", "evaluationMeta", "evaluationMetrics"),
    *("checkPointToSave", "checkPointToLoad", "checkPointInterval"),
    *("steeringExec", "architecture"),
)
#: Keys that would change what runs and cannot be kept.
REFUSED = {
    "alrbArgs": "container.options of a study.yaml takes options of the container's runtime",
    "loadJson": "one file holds all keys",
}
