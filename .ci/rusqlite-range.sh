#!/usr/bin/env bash
# Both ends of the range of rusqlite that Cargo.toml allows: the library's own tests and the Writer's, on a copy, so that
# Cargo.lock stays as it is. What does not depend on rusqlite is shared with the builds in target/.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=target/rusqlite-range
for version in 0.39.0 0.43.0; do
    rm -rf "$copy"
    mkdir -p "$copy"
    git ls-files -z | xargs -0 cp --parents -t "$copy"
    (
        cd "$copy"
        export CARGO_TARGET_DIR=../../target
        cargo update --quiet --package rusqlite --precise "$version"
        printf 'rusqlite %s\n' "$version"
        cargo test --quiet --lib --test writer_connections --test writer_deadlocks --test writer_guard \
            --test writer_isolation --test writer_triggers
    )
done
rm -rf "$copy"
