#!/usr/bin/env bash
# Installs what the tests need and runs the whole suite: formatting, lints, tests.
#
# A Rust toolchain and a C compiler (for the MP3 encoder) are enough; on Debian the compiler is
# installed when it is missing and we may install it.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null 2>&1; then
  echo "cargo is missing: install Rust from https://rustup.rs" >&2
  exit 2
fi
missing=()
command -v cc >/dev/null 2>&1 || missing+=(gcc)
command -v make >/dev/null 2>&1 || missing+=(make)
if [ "${#missing[@]}" -gt 0 ]; then
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && apt-get install -y -qq "${missing[@]}"
  else
    echo "missing: ${missing[*]}; install them with your package manager" >&2
    exit 2
  fi
fi

# Lints and formatting need components that a minimal toolchain lacks; tests do not.
if cargo fmt --version >/dev/null 2>&1; then
  cargo fmt --all --check
fi
if cargo clippy --version >/dev/null 2>&1; then
  cargo clippy --release --workspace --all-targets -- -D warnings
fi
cargo test --release --workspace
