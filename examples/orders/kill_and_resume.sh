#!/usr/bin/env bash
# Kills the orders example with SIGKILL a few times, KILLS_AFTER_S seconds after each start, resumes it, and
# fails unless every order is proven complete exactly once, the last resume within LIMIT_S seconds.
# Usage: examples/orders/kill_and_resume.sh [orders]    (enough to last until the first kill)
set -euo pipefail
cd "$(dirname "$0")/../.."
orders=${1:-4000}
limit_s=${LIMIT_S:-300}
kills_after_s=${KILLS_AFTER_S:-1 1 2}

cargo build --release --quiet --example orders
bin=${CARGO_TARGET_DIR:-target}/release/examples/orders
dir=$(mktemp -d)
pid=
trap 'if [ -n "$pid" ]; then kill -9 "$pid" 2>/dev/null || true; fi; rm -rf "$dir"' EXIT

kills=0
mode=--fresh
for after_s in $kills_after_s; do
    "$bin" --orders "$orders" --db "$dir/orders.db" $mode &
    pid=$!
    sleep "$after_s"
    kill -9 "$pid" 2>/dev/null || true
    status=0
    wait "$pid" 2>/dev/null || status=$?
    pid=
    case $status in
        137) kills=$((kills + 1)) mode=--resume ;;
        0) break ;; # it was done before the kill came
        *) echo "the run ended by itself with status $status" >&2; exit 1 ;;
    esac
done
if [ "$kills" = 0 ]; then echo "too few orders: done before the first kill" >&2; exit 1; fi

timeout "$limit_s" "$bin" --orders "$orders" --db "$dir/orders.db" --resume | tee "$dir/out"
grep -q '^verified: ' "$dir/out"
if ! grep -q '^resuming: [1-9]' "$dir/out"; then echo "killed before any order was complete" >&2; exit 1; fi
echo "killed $kills times, nothing lost"
