#!/usr/bin/env bash
# Fuzzes one target, or all of them, for so many seconds each: fuzz/run.sh TARGET|all [SECONDS [OPTION...]]
#
# Works on a new machine: it installs cargo-fuzz into target/tools. The toolchain is the stable one, hence no
# sanitizer: the crate has no unsafe code to speak of, and SQLite's C would not be instrumented anyway.
# What is found is kept under target/fuzz/found/TARGET; run it again with
#     target/fuzz/x86_64-unknown-linux-gnu/release/TARGET FILE
# OPTIONs are libFuzzer's own. With SECONDS 0 it only builds.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=0.13.2
TARGETS="decode round_trip operations mutated_file"

which=${1:?"usage: fuzz/run.sh TARGET|all [SECONDS [OPTION...]]; targets: $TARGETS"}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
[ "$which" = all ] && which=$TARGETS

tools=$PWD/target/tools
if ! "$tools/bin/cargo-fuzz" --version 2>/dev/null | grep -qF "$VERSION"; then
    cargo install --quiet --locked --root "$tools" --version "$VERSION" cargo-fuzz
fi

# Databases are written in memory where that can be had.
places=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" forebay-fuzz.XXXXXX)
trap 'rm -rf "$places"' EXIT
host=$(rustc -vV | sed -n 's/^host: //p')
for target in $which; do
    RUSTC_BOOTSTRAP=1 "$tools/bin/cargo-fuzz" build --sanitizer none --codegen-units 16 --target "$host" --target-dir target/fuzz "$target"
    [ "$seconds" = 0 ] && continue
    corpus=target/fuzz/corpus/$target found=target/fuzz/found/$target
    mkdir -p "$corpus" "$found"
    printf '\n== fuzz %s, %s s\n' "$target" "$seconds"
    TMPDIR=$places "target/fuzz/$host/release/$target" "$corpus" "fuzz/seeds/$target" -artifact_prefix="$found/" \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 "$@"
done
