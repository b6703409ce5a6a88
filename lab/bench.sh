#!/bin/bash
# Shows that each row of `cargo xtask bench lab` can be run: few rounds, and no time is asserted. Runs in level 1, as one of the lab tests.
set -euo pipefail
# All rows as one line of JSON are for xtask.
bench-lab --quick | grep --line-buffered -v '^JSON '
