#!/usr/bin/env bash
# Breaks one folder of src/, or all three, in every small way that cargo-mutants knows, and names the breakages that
# no test notices: tests/mutants.sh buffer|queue|codec|all [OPTION...]
#
# Works on a new machine: it installs cargo-mutants into target/tools. What is mutated is a copy; the working tree
# stays as it is. Results are kept under target/mutants/FOLDER (mutants.out/: missed.txt, timeout.txt, log/).
# OPTIONs are cargo-mutants' own: `--iterate` runs again only what was missed, `--shard 0/4` a quarter, `--list` none.
# Fails if something was missed. What is left out, and why: .cargo/mutants.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=27.1.0
FOLDERS="buffer queue codec"

which=${1:?"usage: tests/mutants.sh FOLDER|all [OPTION...]; folders: $FOLDERS"}
shift
[ "$which" = all ] && which=$FOLDERS

tools=$PWD/target/tools
if ! "$tools/bin/cargo-mutants" mutants --version 2>/dev/null | grep -qF "$VERSION"; then
    cargo install --quiet --locked --root "$tools" --version "$VERSION" cargo-mutants
fi

# Built for every mutant and run once: what counts is the time to build. One target folder, so that the
# dependencies are built once; what former copies left in it is of no use to the next.
export CARGO_TARGET_DIR=$PWD/target/mutants/build CARGO_PROFILE_DEV_DEBUG=0
export PROPTEST_CASES=${PROPTEST_CASES:-64} RUST_BACKTRACE=0
cargo clean --quiet --package forebay

failed=0
for folder in $which; do
    # Only what is about the folder: a mutant that survives here has no test of its own, whoever else would notice.
    # Targets are arguments of every call of cargo, or each mutant would be built into every test there is.
    case $folder in
    buffer) targets="--no-default-features -C=--lib -C=--test=writer_triggers -C=--test=writer_isolation" only= ;;
    *) targets=-C=--lib only=$folder ;;
    esac
    mkdir -p "target/mutants/$folder"
    printf '\n== mutants of src/%s\n' "$folder"
    # A mutant may hang: 30 s are many times what the tests take.
    # shellcheck disable=SC2086
    "$tools/bin/cargo-mutants" mutants --file "src/$folder/**" $targets --timeout 30 \
        --output "target/mutants/$folder" "$@" -- $only || failed=$?
done
exit "$failed"
