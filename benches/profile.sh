#!/bin/sh
# An on-CPU flamegraph of any subject and work, into target/profile/ (docs/profiling.md).
#
#   benches/profile.sh SUBJECT WORK [CELL]
#   benches/profile.sh forebay-full 2 8/8
#
# CELL is a part of the cell's name; without it, the first cell of the work. The harness' own child is
# profiled, doing the same job as in a measurement. Linux only.
set -eu
cd "$(dirname "$0")/.."

if [ $# -lt 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
fi
subject=$1 work=$2 cell=${3-}
target=${CARGO_TARGET_DIR:-target}
out=$target/profile
tools=$target/tools
mkdir -p "$out"

# Perf, and permission to use it.
if ! command -v perf >/dev/null; then
    echo "installing linux-perf" >&2
    apt-get install -y linux-perf >/dev/null || {
        echo "profile.sh: perf is missing and could not be installed; install linux-perf (Debian) or linux-tools (Ubuntu)" >&2
        exit 1
    }
fi
if ! perf record -q -o "$out/probe.data" -- true 2>"$out/probe.log"; then
    cat "$out/probe.log" >&2
    echo "profile.sh: perf may not record here. As root: sysctl kernel.perf_event_paranoid=1; in a container: --cap-add PERFMON --security-opt seccomp=unconfined" >&2
    exit 1
fi
rm -f "$out/probe.data" "$out/probe.log"

if [ ! -x "$tools/bin/inferno-flamegraph" ]; then
    echo "installing inferno into $tools" >&2
    # A target folder of its own: this is no part of the workspace.
    CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked inferno --root "$tools"
fi

# The binaries that are measured, not others built for the occasion.
harness=$(cargo bench --bench harness --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"target":{"kind":\["bench"\].*"name":"harness".*"executable":"\([^"]*\)".*/\1/p')
[ -n "$harness" ] || { echo "profile.sh: the harness does not build: cargo bench --bench harness --no-run" >&2; exit 1; }
case $subject in
tokio-rusqlite-*) cargo build --quiet --release --locked --manifest-path benches/peers-writer/Cargo.toml --target-dir "$target/peers-writer" ;;
sqlite-*) cargo build --quiet --release --locked --manifest-path benches/peers/Cargo.toml --target-dir "$target/peers" ;;
duroxide-pg) cargo build --quiet --release --locked --features pg --manifest-path benches/peers/Cargo.toml --target-dir "$target/peers" ;;
esac

tab=$(printf '\t')
line=$("$harness" --jobs --subjects "$subject" --work "$work" --out "$out" |
    awk -F '\t' -v cell="$cell" 'cell == "" || index($1, cell) { print; exit }')
[ -n "$line" ] || { echo "profile.sh: $subject does no cell of work $work called '$cell' (--list, docs/benchmarks.md)" >&2; exit 1; }
IFS=$tab read -r label program folder job <<END
$line
END
rm -rf "$folder"
mkdir -p "$folder"

name=$subject-$work-$(echo "$label" | tr -c 'a-z0-9\n' '-')
echo "profiling $subject, work $work, $label" >&2
# Stacks by DWARF: neither SQLite nor the C library keeps frame pointers. 499, so as not to beat in time
# with anything that happens every millisecond. The peers ignore the argument.
printf '%s\n' "$job" | perf record -q -F 499 --call-graph dwarf,16384 -o "$out/$name.data" -- "$program" --serve >"$out/$name.json"
perf script -i "$out/$name.data" --no-inline 2>/dev/null |
    "$tools/bin/inferno-collapse-perf" 2>/dev/null |
    # What is between a thread's name and its own first function is the same for all.
    sed 's/^\([^;]*\);.*std::sys::backtrace::__rust_begin_short_backtrace;/\1;/' >"$out/$name.folded"
"$tools/bin/inferno-flamegraph" --title "$subject, work $work, $label" "$out/$name.folded" >"$out/$name.svg"
rm -rf "$out/$name.data" "$folder"

# The same in words: what is on top of the stack, most first.
awk '{ n = $NF; $NF = ""; sub(/ $/, ""); total += n; split($0, s, ";"); top[s[length(s)]] += n }
    END { for (f in top) printf "%5.1f %%  %s\n", 100 * top[f] / total, f }' "$out/$name.folded" | sort -rn | head -25
echo "$out/$name.svg (and .folded; .json has the figures of the run)" >&2
