#!/bin/bash
# Shows that each row of `cargo xtask bench lab` can be run: few rounds, and no time is asserted. And that what goes wrong is told, and is
# exit status 1. Runs in level 1, as one of the lab tests.
set -euo pipefail

fails() { # TEXT COMMAND…: ends with 1, and says TEXT
  local text=$1 said status=0
  shift
  said=$("$@" 2>&1) || status=$?
  [ $status = 1 ] && [[ $said = *"$text"* ]] && return
  echo "\`$*\` ended with $status, and not with 1 and '$text': $said" >&2
  return 1
}
# All rows as one line of JSON are for xtask.
bench-lab --quick | grep --line-buffered -v '^JSON '

fails "there is no row no-such-row; there are rest, make" bench-lab no-such-row
# Where a peer is missing: this PATH leads to all that level 1 has but for one.
mkdir /run/few
ln -sf /usr/bin/* /usr/sbin/* /run/lab/bin/* /run/few/
rm /run/few/driverctl
fails "FAILED: missing: driverctl" env PATH=/run/few bench-lab --quick bind
# Last, for what it was doing goes on.
fails "FAILED: not done after 0 s" bench-lab --quick --bound 0 rest
