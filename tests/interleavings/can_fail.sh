#!/usr/bin/env bash
# Breaks a copy of the buffer in several ways, one at a time; the scenarios have to catch each of them.
set -euo pipefail
cd "$(dirname "$0")/../.."

copy=target/interleavings-broken
schedules=${1:-300}
run() { cargo run --quiet --manifest-path $copy/tests/interleavings/Cargo.toml --target-dir target -- "$schedules"; }

# Not here, because nobody can tell: a failure or a close that forgets what the store holds (the responders answer
# when they are dropped), and a close that leaves what came behind it (that is told "closed" instead of done).

# NAME FILE SED-SCRIPT: the script has to change the file.
broken() {
    rm -rf $copy
    mkdir -p $copy/tests
    cp -r src $copy/src
    cp -r tests/interleavings $copy/tests/interleavings
    # Another name, or its program would be taken for the one that is sound.
    sed -i 's/forebay-interleavings/forebay-broken/' $copy/tests/interleavings/Cargo.{toml,lock}
    sed -i "$3" "$copy/src/buffer/$2"
    if cmp -s "src/buffer/$2" "$copy/src/buffer/$2"; then
        echo "$1: nothing was changed, so nothing was shown" >&2
        exit 1
    fi
    if run >$copy/log 2>&1; then
        echo "NOT CAUGHT  $1" >&2
        exit 1
    fi
    if grep -q '^error' $copy/log; then
        cat $copy/log >&2
        exit 1
    fi
    echo "caught      $1: $(grep '^scenario: ' $copy/log | tail -1 | cut -c11-)"
}

broken "answers before the commit" cycle.rs \
    's/let committed = match applied {/self.replies.deliver(\&self.horizon, 0); let committed = match applied {/'
broken "the flag of a nudge goes down only after the store was looked at" cycle.rs \
    's/Message::Nudge => self.shared.disarm_nudge(),/Message::Nudge => {}/; s/self.commit()?;/self.shared.disarm_nudge(); self.commit()?;/'
broken "a nudge never goes down" shared.rs 's/self.nudged.store(false/self.nudged.store(true/'
broken "permits do not come back" cycle.rs 's/let permits = self.batch/let permits: usize = self.batch/; s/self.shared.permits.add_permits(permits);//'
broken "permits come back once too often" cycle.rs 's/self.shared.permits.add_permits(permits);/self.shared.permits.add_permits(permits); self.shared.permits.add_permits(1);/'
broken "a failure answers before it latches" cycle.rs \
    's/self.shared.latch(&error);//; s/let failed = self.shared.refusal();/self.shared.latch(\&error); let failed = self.shared.refusal();/'
broken "a failure does not close the permits" shared.rs '/cause_of(error)/{n;s/self.permits.close();//}'
broken "a close does not wait" mod.rs 's/let _ = handle.join();//'
broken "the writer waits for itself" mod.rs 's/if thread::current().id() == self.writer {/if false {/'
broken "the writer does not look into the channel a last time" cycle.rs 's/answer_stragglers(&self.receiver);//'
broken "a submission does not see that the engine has ended" mod.rs 's/if self.shared.has_ended() {/if false {/'
broken "the room for control messages is missing" mod.rs 's/bounded(permits_max + CONTROL_MESSAGES)/bounded(permits_max)/'
broken "an answer does not wait for the disk" reply.rs 's/match held.after.min(committed) {/match held.after.min(0) {/'
broken "a waiter that comes while a sync ends is forgotten" horizon.rs 's/_ if no <= self.durable() => Ok(()),//'
broken "a failed sync is told before it latches" horizon.rs \
    's/self.fail(&Error::OutcomeUnknown/let _ = \&self.alarm; self.fail(\&Error::OutcomeUnknown/; s/alarm(error);//'
