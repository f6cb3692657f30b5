#!/bin/bash
# An evaluation payload as the grid runs it, without a word of Python: it "trains" one weight w
# towards 3 by gradient descent with momentum, and keeps its state after each of 40 steps.
set -euo pipefail

value() { sed -n "s/.*\"$1\": *\([-+.0-9eE]*\).*/\1/p" input.json; }
lr=$(value lr) momentum=$(value momentum)

mkdir -p state mlruns
read -r step w v < state/last 2>/dev/null || { step=0 w=0 v=0; }
echo "begins at step $step with lr=$lr momentum=$momentum"

while [ "$step" -lt 40 ]; do
  read -r w v < <(awk -v w="$w" -v v="$v" -v lr="$lr" -v m="$momentum" \
    'BEGIN { v = m * v - lr * 2 * (w - 3); w += v; printf "%.12g %.12g\n", w, v }')
  step=$((step + 1))
  echo "$step $w $v" > state/new
  mv state/new state/last           # whole or not at all: it is copied at any moment
  echo "$step $w" >> mlruns/w
  sleep "${STEP_S:-0.02}"
done

tar czf metrics.tgz mlruns
loss=$(awk -v w="$w" 'BEGIN { d = w - 3; if (d > 1e100 || d < -1e100 || d != d) exit 1; printf "%.9g", d * d }') \
  || { echo '{"status": 1, "message": "diverged"}' > output.json; exit 0; }
printf '{"status": 0, "loss": %s}\n' "$loss" > output.json
