"""Results as runs of MLflow: a parent run for the study, and one nested in it for each trial."""
