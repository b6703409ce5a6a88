# shellcheck shell=bash
# How lab/failover.sh, lab/standby.sh and lab/migrate.sh wait for what they say, and count the pings that $guest does not answer.

until_so() { # WHAT COMMAND…: waits until it is so, for as long as a busy machine may take
  local what=$1 tries=300; shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1)); [ "$tries" -gt 0 ] || { echo "  ✗ $what"; exit 1; }
    sleep 0.5
  done
  echo "  ✓ $what"
}
answers() { busybox ping -c 1 -W 1 "$guest"; }
told() { ioward events | tail -n +"$((said + 1))" | grep -F "$1"; } # since `pings`
pings() { # begins to count
  said=$(ioward events | wc -l)
  busybox ping -i 0.2 "$guest" >/run/pings 2>&1 & pinger=$!
}
count() { # WHAT: ends it, and says how many were lost
  sleep 1
  kill -INT "$pinger"; wait "$pinger" || true
  read -r sent received < <(sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) packets received.*/\1 \2/p' /run/pings)
  echo "  $1: $((sent - received)) of $sent pings lost, one each 0.2 s"
  ioward events | tail -n +"$((said + 1))" | grep -E 'failed over|active|frozen|serves|halted|drift|moved|stays here|has come' || true
}
