#!/usr/bin/env bash
# Replays recorded exchanges with a real Kubernetes (the folder $1) against `petset apiserver` and `petset controller`.
# Every exchange must agree unless oracle-differences.txt names it, and those that it names (without a ?) must differ.
set -euo pipefail
cd "$(dirname "$0")/.."
oracle=$1
petset=${PETSET:-target/debug/petset}
data=$(mktemp -d)
trap 'kill $pids 2>/dev/null; wait; rm -rf "$data"' EXIT
pids=

wait_for() { # FILE PATTERN: until a line appears in the log of something just started
  for _ in $(seq 600); do
    grep -q "$2" "$1" 2>/dev/null && return
    kill -0 "${pids##* }" 2>/dev/null || break
    sleep 0.1
  done
  echo "oracle.sh: no '$2' in:" >&2; cat "$1" >&2; exit 1
}

"$petset" apiserver --data-dir "$data" --api 127.0.0.1:0 >"$data.api" 2>&1 & pids="$pids $!"
wait_for "$data.api" '^kubeconfig'
# Recorded without a scheduler: one would bind or refuse the pods that exchanges look at.
"$petset" controller --data-dir "$data" --kubeconfig "$data/kubeconfig" --controllers='*,-scheduler' >"$data.controller" 2>&1 &
pids="$pids $!"
wait_for "$data.controller" '^controllers work'

url=$(sed -n 's/.*"api": "\(.*\)".*/\1/p' "$data/running.json")
python3 "$oracle/replay.py" --base "$url" --token-file "$data/pki/admin.token" --ca "$data/pki/ca.crt" "$oracle" >"$data.replay" || true
echo "oracle: $(grep -c '^same' "$data.replay" || true) agree, $(grep -c '^differs' "$data.replay" || true) differ"
grep -q '^same' "$data.replay" || { cat "$data.replay" "$data.api" >&2; exit 1; }

sed -n 's/^differs  *\([^ ]*\).*/\1/p' "$data.replay" | sort >"$data.differ"
sed -n 's/^?\{0,1\}\([a-z][^ ]*\) .*/\1/p' e2e/oracle-differences.txt | sort >"$data.listed"
sed -n 's/^\([a-z][^ ]*\) .*/\1/p' e2e/oracle-differences.txt | sort >"$data.must"
status=0
while read -r id; do
  echo "oracle: differs and is not in e2e/oracle-differences.txt: $(grep "^differs  *$id " "$data.replay")" >&2
  status=1
done < <(comm -23 "$data.differ" "$data.listed")
while read -r id; do
  echo "oracle: agrees now, so take it out of e2e/oracle-differences.txt: $id" >&2
  status=1
done < <(comm -13 "$data.differ" "$data.must")
rm -f "$data".*
exit $status
