#!/bin/bash
# An evaluation payload as the grid runs it, without a word of Python: it "trains" one weight w
# towards 3 by gradient descent with momentum, and keeps its state after each of 40 steps.
set -euo pipefail

value() { sed -n "s/.*\"$1\": *\([-+.0-9eE]*\).*/\1/p" input.json; }
now() { printf '%(%s)T000' -1; }    # milliseconds, as MLflow counts
lr=$(value lr) momentum=$(value momentum)

mkdir -p state
read -r step w v < state/last 2>/dev/null || { step=0 w=0 v=0; }
read -r id began < state/run 2>/dev/null || {
  id=$(printf '%08x%08x%08x%08x' $$ $RANDOM $RANDOM "$(printf '%(%s)T' -1)") began=$(now)
  echo "$id $began" > state/run
}
echo "begins at step $step with lr=$lr momentum=$momentum"

while [ "$step" -lt 40 ]; do
  read -r w v < <(awk -v w="$w" -v v="$v" -v lr="$lr" -v m="$momentum" \
    'BEGIN { v = m * v - lr * 2 * (w - 3); w += v; printf "%.12g %.12g\n", w, v }')
  step=$((step + 1))
  echo "$(now) $w $step" >> state/w
  echo "$step $w $v" > state/new
  mv state/new state/last           # whole or not at all: it is copied at any moment
  sleep "${STEP_S:-0.02}"
done

# metrics.tgz holds the run in MLflow's layout of plain files: mlruns/<experiment>/<run>/.
experiment=mlruns/0 run=mlruns/0/$id
mkdir -p "$run"/{params,metrics,tags,artifacts}
cat > "$experiment/meta.yaml" <<EOF
artifact_location: ./$experiment
experiment_id: '0'
lifecycle_stage: active
name: Default
EOF
cat > "$run/meta.yaml" <<EOF
artifact_uri: ./$run/artifacts
end_time: $(now)
entry_point_name: ''
experiment_id: '0'
lifecycle_stage: active
run_id: $id
run_name: descent
run_uuid: $id
source_name: evaluate.sh
source_type: 4
source_version: ''
start_time: $began
status: 3
tags: []
user_id: grid
EOF
printf %s "$lr" > "$run/params/lr"
printf %s "$momentum" > "$run/params/momentum"
printf %s descent > "$run/tags/model"
awk 'NF == 3 && !seen[$3]++' state/w > "$run/metrics/w"    # a step that was done twice counts once
tar czf metrics.tgz mlruns
loss=$(awk -v w="$w" 'BEGIN { d = w - 3; if (d > 1e100 || d < -1e100 || d != d) exit 1; printf "%.9g", d * d }') \
  || { echo '{"status": 1, "message": "diverged"}' > output.json; exit 0; }
printf '{"status": 0, "loss": %s}\n' "$loss" > output.json
