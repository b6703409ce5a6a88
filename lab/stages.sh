# shellcheck shell=bash
# How lab/demo.sh, lab/libvirt.sh and lab/restart.sh show what they do, and hold it against what is so.

bold='' cyan='' plain=''
if [ "${IOWARD_LAB_COLOR:-no}" = yes ]; then bold=$'\033[1m' cyan=$'\033[36m' plain=$'\033[0m'; fi
stage() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '%s$ %s%s\n' "$cyan" "$*" "$plain"; "$@"; }
in_guest() { printf '%s%s# %s%s\n' "$cyan" "$1" "$2" "$plain"; lab-guest "$1" "$2"; }
check() { # WHAT COMMAND…: says whether it is so, and ends the script when it is not
  local what=$1; shift
  if "$@"; then echo "  ✓ $what"; else echo "  ✗ $what"; exit 1; fi
}
