# Shared by the scripts beside it: source it, do not run it.
# shellcheck shell=bash
#
# Works as root and as a user who may use sudo, on a Debian with nothing installed, and
# with an empty HOME. Nothing here reads standard input.

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export DEBIAN_FRONTEND=noninteractive

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root, by sudo where that is needed.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "'$*' needs root: run this script as root, or install sudo"
  fi
}

APT_UPDATED=
# Installs those of the named Debian packages that are missing.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "these are missing, and there is no apt-get to install them: ${missing[*]}"
  say "installing ${missing[*]}"
  if [ -z "$APT_UPDATED" ]; then
    as_root apt-get update -q </dev/null >&2
    APT_UPDATED=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" </dev/null >&2
}

# What building and running the drive needs.
need_run_packages() { need_packages ca-certificates gcc libc6-dev pkg-config fuse3; }

# What the round trip and the tests need besides.
need_test_packages() {
  need_run_packages
  need_packages acl attr dbus-daemon diffutils git gnome-keyring grep libfaketime procps python3 python3-cryptography python3-websockets rsync util-linux
  PYTHON=$(find_python) || die "no python3 can import cryptography and websockets, although both packages are installed"
  export PYTHON
}

# Debian's own interpreter first: it is the one that sees Debian's python3-* packages.
find_python() {
  local python
  for python in /usr/bin/python3 "$(command -v python3 || true)"; do
    if [ -x "$python" ] && "$python" -c 'import cryptography, websockets' 2>/dev/null; then
      printf '%s\n' "$python"
      return 0
    fi
  done
  return 1
}

# The user's home folder as the system knows it, whatever HOME says.
system_home() { getent passwd "$(id -u)" | cut -d: -f6; }

cargo_answers() { cargo --version >/dev/null 2>&1 && rustc --version >/dev/null 2>&1; }

# Puts a cargo that answers on the PATH: the one there, rustup's of this user, or Debian's.
find_cargo() {
  if ! command -v cargo >/dev/null; then
    local folder
    for folder in "${CARGO_HOME:-}/bin" "$HOME/.cargo/bin" "$(system_home)/.cargo/bin"; do
      if [ -x "$folder/cargo" ]; then export PATH="$folder:$PATH"; break; fi
    done
  fi
  command -v cargo >/dev/null || return 1
  cargo_answers && return 0
  # A rustup proxy looks for its toolchains below HOME. Where HOME is not the folder it
  # was installed for, they are beside the proxy's own folder, or in the system's idea of home.
  if [ -z "${RUSTUP_HOME:-}" ]; then
    local proxy candidate
    proxy=$(command -v cargo)
    for candidate in "$(dirname "$proxy")/../../.rustup" "$(system_home)/.rustup"; do
      if [ -d "$candidate/toolchains" ]; then
        RUSTUP_HOME=$(cd "$candidate" && pwd)
        export RUSTUP_HOME
        cargo_answers && return 0
        unset RUSTUP_HOME
      fi
    done
  fi
  return 1
}

wanted_rust() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$REPO/Cargo.toml"; }

# True if rustc is at least the version of Cargo.toml.
rust_is_new_enough() {
  local have
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n%s\n' "$(wanted_rust)" "${have%%-*}" | sort -V | head -1)" = "$(wanted_rust)" ]
}

need_rust() {
  if ! find_cargo; then
    if apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
      need_packages rustup
      rustup toolchain install stable --profile minimal --component clippy,rustfmt >&2
    else
      need_packages cargo rustc
    fi
    find_cargo || die "no working cargo: install Rust $(wanted_rust) or newer from https://rustup.rs and run this again"
  fi
  rust_is_new_enough || die "$(rustc --version) is too old: this crate needs Rust $(wanted_rust).
  'rustup update' or https://rustup.rs gives a newer one (Debian's own may be too old)."
}

# Sets NEXTEST=1 if `cargo nextest` can be had; the tests fall back to `cargo test`.
need_nextest() {
  NEXTEST=
  if ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest (a few minutes; once)"
    cargo install --locked cargo-nextest >&2 || say "cargo-nextest cannot be had: cargo test runs instead"
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  fi
  if cargo nextest --version >/dev/null 2>&1; then NEXTEST=1; fi
}

# The programs that work on the drive in tests/heavy/programs.rs.
need_programs() { need_packages borgbackup fio restic sqlite3 stress-ng tar vim-tiny; }

# The suites that others wrote, in the target folder. Sets PRIVICOREFS_SUITES to their folder.
need_suites() {
  local folder
  folder=$(target_dir)/suites
  if ! [ -x "$folder/bin/pjdfstest" ] || ! [ -x "$folder/bin/fsx" ]; then
    say "installing pjdfstest and fsx (a few minutes; once)"
    need_packages libacl1-dev
    CARGO_TARGET_DIR=$folder/build cargo install --locked --root "$folder" pjdfstest@0.2.2 fsx@0.3.2 >&2 ||
      die "pjdfstest and fsx could not be installed: see above"
    rm -rf "$folder/build"
  fi
  export PRIVICOREFS_SUITES=$folder/bin
}

# A mount needs the device, and permission to open it.
need_fuse() {
  [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
  [ -e /dev/fuse ] || die "there is no /dev/fuse: load the kernel module 'fuse', or give this container the device"
  [ "$(id -u)" = 0 ] || [ -w /dev/fuse ] || die "/dev/fuse cannot be opened by $(id -un): its usual mode is 0666"
}

# Where cargo puts its output, from cargo itself: it respects CARGO_TARGET_DIR and configuration.
target_dir() {
  cargo metadata --manifest-path "$REPO/Cargo.toml" --format-version 1 --no-deps --locked |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Builds the release binary and sets PRIVICOREFS to it.
build_release() {
  say "building privicorefs (a few minutes the first time)"
  cargo build --manifest-path "$REPO/Cargo.toml" --release --locked >&2
  PRIVICOREFS=$(target_dir)/release/privicorefs
  [ -x "$PRIVICOREFS" ] || die "the build left no $PRIVICOREFS"
}

is_mounted() { grep -qF " $1 " /proc/self/mounts; }

# Removes a folder of tests, folders without write permission in it too.
remove_tree() {
  [ -e "$1" ] || return 0
  find "$1" -xdev -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null || true
  rm -rf --one-file-system "$1"
}

# Every process that a test starts is noted in PRIVICOREFS_TEST_REGISTRY, as "pid N START", and every
# mount is below LAB. One that is still there was forgotten: it is ended, and the run has failed.
nothing_left() {
  local kind value start left=0
  while read -r kind value start; do
    if [ "$kind" = pid ] && [ "$(process_start "$value")" = "$start" ]; then
      say "left over: process $value: $(tr '\0' ' ' <"/proc/$value/cmdline" | cut -c1-120)"
      kill -9 "$value" 2>/dev/null
      left=1
    fi
  done < <(cat "$PRIVICOREFS_TEST_REGISTRY" 2>/dev/null)
  while read -r _ value _; do
    [[ $value == "$LAB"/* ]] || continue
    say "left over: mount $value"
    timeout 20 fusermount3 -uz "$value" || as_root umount -l "$value" || true
    left=1
  done </proc/self/mounts
  return $left
}

# When a process started, in ticks since boot: with its number, its identity. Nothing for one
# that is dead and only not yet collected.
process_start() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" && $1 != "X" { print $20 }'; }

# --- An engine and its mounts, for the scripts that need them -----------------------------
#
# LAB is a temporary folder. Every process started is noted, and `lab_close`, which is a
# trap, ends those and no others.

LAB_MOUNTS=()
LAB_PIDS=()
ENGINE_PID=

lab_open() {
  LAB=$(mktemp -d "${TMPDIR:-/tmp}/privicorefs.XXXXXX")
  mkdir -m 700 "$LAB/home" "$LAB/run"
  export LAB
  # A configuration of the person who runs this must not change what is measured.
  unset PRIVICORE_API_URL PRIVICORE_WS_URL PRIVICORE_USERNAME PRIVICORE_PASSWORD PRIVICOREFS_KEY_FILE
  export XDG_CONFIG_HOME=$LAB/home/config XDG_STATE_HOME=$LAB/home/state XDG_CACHE_HOME=$LAB/home/cache
  export XDG_DATA_HOME=$LAB/home/data XDG_RUNTIME_DIR=$LAB/run
  trap lab_close EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

lab_close() {
  local status=$? mountpoint pid
  trap - EXIT
  set +e
  if [ "$status" != 0 ] && [ -n "${LAB_SHOW_LOGS:-}" ]; then
    for log in "$LAB"/*/privicorefs.log "$LAB"/engine.log; do
      [ -s "$log" ] && { echo "--- the end of ${log#"$LAB"/}"; tail -n 30 "$log"; } >&2
    done
  fi
  for mountpoint in "${LAB_MOUNTS[@]}"; do
    is_mounted "$mountpoint" && timeout 30 "$PRIVICOREFS" umount --timeout 15 "$mountpoint" >/dev/null 2>&1
  done
  # What did not end by itself is ended by its number, which frees whoever waits for it.
  # A mount that hooks renew keeps its number in a file, which it removes when it ends.
  for pid in "${LAB_PIDS[@]}" $(cat "$LAB"/*/pid 2>/dev/null) $ENGINE_PID; do end_process "$pid"; done
  for mountpoint in "${LAB_MOUNTS[@]}"; do
    if is_mounted "$mountpoint"; then timeout 20 fusermount3 -uz "$mountpoint" || as_root umount -l "$mountpoint"; fi
  done
  remove_tree "$LAB"
  exit "$status"
}

# Ends one process that this script started: politely, then not.
end_process() {
  kill "$1" 2>/dev/null || return 0
  for _ in $(seq 50); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$1" 2>/dev/null
}

# engine_start [options]: a separate engine process on a free port, with a profile, its
# password and a key, in $LAB. Sets ENGINE_PID, API_URL, WS_URL.
engine_start() {
  mkdir -p "$LAB/engine"
  "$PRIVICOREFS" engine --dir "$LAB/engine" --listen 127.0.0.1:0 --json "$@" >"$LAB/engine.json" 2>"$LAB/engine.log" </dev/null &
  ENGINE_PID=$!
  for _ in $(seq 300); do
    [ -s "$LAB/engine.json" ] && break
    kill -0 "$ENGINE_PID" 2>/dev/null || die "the engine ended: $(tail -n 5 "$LAB/engine.log")"
    sleep 0.1
  done
  API_URL=$(json_field api_url <"$LAB/engine.json")
  WS_URL=$(json_field ws_url <"$LAB/engine.json")
  (umask 077; head -c 24 /dev/urandom | base64 >"$LAB/password")
  "$PRIVICOREFS" key generate "$LAB/key" >/dev/null 2>&1
  "$PYTHON" "$REPO/tests/independent/client.py" --api-url "$API_URL" --ws-url "$WS_URL" \
    --username check --password-file "$LAB/password" register >/dev/null
}

json_field() { "$PYTHON" -c 'import json, sys; print(json.loads(sys.stdin.readline())[sys.argv[1]])' "$1"; }

# drive_mount MACHINE [options]: mounts the engine's vault at $LAB/MACHINE/mnt, with its
# state and cache beside that. Sets MNT and DAEMON_PID.
drive_mount() {
  local folder=$LAB/$1
  shift
  mkdir -p "$folder/mnt"
  MNT=$folder/mnt
  LAB_MOUNTS+=("$MNT")
  timeout 120 "$PRIVICOREFS" mount --api-url "$API_URL" --ws-url "$WS_URL" --username check \
    --password-file "$LAB/password" --key-file "$LAB/key" --state-dir "$folder/state" --cache-dir "$folder/cache" \
    --json "$@" "$MNT" >"$folder/mount.json" </dev/null
  DAEMON_PID=$(json_field pid <"$folder/mount.json")
  LAB_PIDS+=("$DAEMON_PID")
}

drive_umount() { timeout "${1:-600}" "$PRIVICOREFS" umount "$MNT" </dev/null; }
