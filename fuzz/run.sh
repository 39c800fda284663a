#!/usr/bin/env bash
# fuzz/run.sh TARGET SECONDS [libFuzzer option]...
#
# Builds a target and fuzzes it for that long, on stable Rust: libFuzzer needs only LLVM's coverage instrumentation,
# whose options are stable; sanitizers are not, and safe code needs none. Exit status 0: nothing was found.
# What was learnt stays in fuzz/corpus/TARGET, what broke it is in fuzz/artifacts/TARGET:
# `fuzz/run.sh TARGET 0 FILE` runs the target on that file once (with KAKEI_FUZZ_TRACE=1, flow_table prints every step),
# `fuzz/run.sh TARGET 0 -minimize_crash=1 -max_total_time=30 FILE` makes it smaller.
set -eu
[ $# -ge 2 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
target=$1 seconds=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-$here/../target}/fuzz

# As cargo-fuzz passes them. `--target` keeps build scripts and macros, which link no libFuzzer, free of them.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
 -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
 -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --quiet --locked --release --manifest-path "$here/Cargo.toml" --target "$host" --target-dir "$built" \
  --bin "$target"

program=$built/$host/release/$target
if [ "$seconds" -eq 0 ]; then
  exec "$program" "$@"
fi
corpus=$here/corpus/$target artifacts=$here/artifacts/$target seeds=$here/seeds/$target words=$here/dictionaries/$target
mkdir -p "$corpus" "$artifacts"
[ ! -d "$seeds" ] || set -- "$@" "$seeds"
[ ! -f "$words" ] || set -- "-dict=$words" "$@"
exec "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 -len_control=10 -print_final_stats=1 \
  -artifact_prefix="$artifacts/" "$corpus" "$@"
