#!/usr/bin/env bash
# Installs what the tests need and runs the whole suite: formatting, lints, tests.
#
# A Rust toolchain and a C compiler (for the MP3 encoder) are enough. On Debian the compiler is
# installed when it is missing and we may install it, and so are the programs and recordings of
# other people that some tests compare with; elsewhere those tests are skipped and say so, except
# in continuous integration (CI=true), where they fail.
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

# Programs that read our songs back, and recordings: a desktop's sounds, a game's music.
missing=()
command -v ffprobe >/dev/null 2>&1 || missing+=(ffmpeg)
command -v flac >/dev/null 2>&1 || missing+=(flac)
command -v opusinfo >/dev/null 2>&1 || missing+=(opus-tools)
# A Vulkan driver that computes on the processor, for the tests of the WebGPU backend.
ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1 || missing+=(mesa-vulkan-drivers libvulkan1)
[ -d /usr/share/sounds/freedesktop ] || missing+=(sound-theme-freedesktop)
[ -d /usr/share/games/rrootage/sounds ] || missing+=(rrootage-data)
if [ "${#missing[@]}" -gt 0 ]; then
  installed=no
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; then
      installed=yes
    fi
  fi
  if [ "$installed" = no ]; then
    echo "not installed: ${missing[*]} (names of Debian's packages); tests that need them are" \
      "skipped, or fail in continuous integration" >&2
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
