#!/usr/bin/env bash
# Breaks a copy of the engine in several ways, one at a time, so that somebody outside is told too early; the observer
# of tests/power_loss has to catch each of them. Says which of its tests did.
#
# tests/observer_can_fail.sh [a word of the name of what is to be broken]
set -euo pipefail
cd "$(dirname "$0")/.."

copy=target/observer-broken
# Its own: cargo takes both trees for the same package, and would leave the broken one in the place of the sound one.
built=target/observer-broken-built
only=${1:-}
run() {
    cargo test --quiet --release --manifest-path $copy/Cargo.toml --target-dir $built --features test-hooks \
        --test power_loss -- "$@"
}

# NAME FILE SED-SCRIPT: the script has to change the file.
broken() {
    [[ $1 == *"$only"* ]] || return 0
    rm -rf $copy
    mkdir -p $copy
    cp -r Cargo.toml Cargo.lock src tests benches examples $copy
    [[ ! -d .cargo ]] || cp -r .cargo $copy
    sed -i "$3" "$copy/src/$2"
    if cmp -s "src/$2" "$copy/src/$2"; then
        echo "$1: nothing was changed, so nothing was shown" >&2
        exit 1
    fi
    if ! run --list >$copy/log 2>&1; then
        cat $copy/log >&2
        exit 1
    fi
    if run observer::random --nocapture >$copy/log 2>&1; then
        echo "NOT CAUGHT  $1: $(grep '^observer.*wrong' $copy/log)" >&2
        exit 1
    fi
    if ! grep -q 'LOST' $copy/log; then
        tail -50 $copy/log >&2
        exit 1
    fi
    echo "caught      $1:"
    grep -o 'observer, .*wrong' $copy/log | sed 's/^/              /'
    grep -o 'LOST: .*; seen: [A-Za-z]*' $copy/log | sort | uniq -c | sort -rn | head -3 | sed 's/^/          /'
}

broken "activities are granted early" engine/grants.rs 's/else { scheduled_in };/else { 0 };/; s/let scheduled_in/let _scheduled_in/'
broken "reads do not wait" provider/mod.rs 's/horizon.reached(no).await/{ let _ = (horizon, no); Ok(()) }/'
broken "a worker is shown all there is" engine/histories.rs 's/entry.runs.get(..entry.durable_len(durable))/{ let _ = durable; entry.runs.get(..) }/'
broken "listings do not wait" provider/mod.rs 's/Seen::Anything => horizon.announced(),/Seen::Anything => 0,/'
broken "a change is noted after its commit" engine/cycle.rs 's/if no > 0 \&\& .*history_changes.is_empty() {/if false {/'
inside() { echo "s/^        | Op::FetchWork(_) => true,/        | Op::FetchWork(_) | $1 => true,/; /^        |* *$1\$/d"; }
broken "a client is answered early, message" engine/cycle.rs "$(inside 'Op::EnqueueMessage(_)')"
broken "a client is answered early, activity" engine/cycle.rs "$(inside 'Op::EnqueueWork(_)')"
broken "a client is answered early, history" engine/cycle.rs "$(inside 'Op::AppendHistory { .. }')"
broken "a client is answered early, deletion" engine/cycle.rs "$(inside 'Op::Delete { .. }')"
broken "a client is answered early, pruning" engine/cycle.rs "$(inside 'Op::Prune { .. }')"
# Not here, because these loads see it too rarely: queue depths, and refusals, that are told early.
broken "the sync is skipped" sqlite/log_file.rs 's/check(unsafe { sync(self.file.as_mut_ptr().cast(), ffi::SQLITE_SYNC_NORMAL) })/{ let _ = sync; Ok(()) }/'
broken "a commit is published before it is synced" sqlite/log_sync.rs 's/let mut sync = self.sync.lock();/self.horizon.reach(no); let mut sync = self.sync.lock();/'
