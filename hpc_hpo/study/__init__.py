"""study.yaml: read, validated, compared with the frozen one, and its payload looked at."""

from hpc_hpo.study.changes import Change, compare
from hpc_hpo.study.inputs import Input
from hpc_hpo.study.load import Study, load_study, parse_study
from hpc_hpo.study.payload import check_payload, network_of, payload_fields

__all__ = [
    "Change",
    "Input",
    "Study",
    "check_payload",
    "compare",
    "load_study",
    "network_of",
    "parse_study",
    "payload_fields",
]
