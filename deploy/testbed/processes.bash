# shellcheck shell=bash
# Starting, watching and stopping processes by their recorded id. Needs layout.bash.
#
# There is no service manager here. Every process gets its own session and a nearly empty environment
# that carries one mark, TESTBED_PROCESS_OF=<root>; children inherit it, so that nothing is lost when
# its parent dies, and nothing is ever signalled because of its name.

MARK=TESTBED_PROCESS_OF=$TESTBED_ROOT

pid_of() { [[ -s $RUN/$1.pid ]] && cat "$RUN/$1.pid"; }

# running PID: a zombie does not run (nobody may be there to reap it soon).
running() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  stat=${stat##*) }
  [[ ${stat%% *} != [ZX] ]]
}

# ours PID: guards against an id that has been given to another process meanwhile.
# sshd and postgres write over their environment, but name the root in their arguments.
ours() {
  grep -qszxF -- "$MARK" "/proc/$1/environ" || grep -qszF -- "$TESTBED_ROOT/" "/proc/$1/cmdline"
}

alive() {
  local pid
  pid=$(pid_of "$1") && running "$pid" && ours "$pid"
}

# launch NAME COMMAND…: in the background, log and process id recorded.
# Variables named in KEEP are passed on; secrets travel so, never in arguments.
launch() {
  local name=$1 log=$LOGS/$1.log keep=${KEEP:-}
  shift
  if [[ -s $RUN/$name.pid ]]; then reaped "$(pid_of "$name")"; fi
  [[ -f $log && $(stat -c %s "$log") -gt 20000000 ]] && mv "$log" "$log.old"
  (
    for variable in $(compgen -e); do
      [[ " $keep " == *" $variable "* ]] || unset "$variable"
    done
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "${MARK?}"
    ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    cd /
    exec setsid "$@" </dev/null >>"$log" 2>&1 9>&-
  ) &
  echo $! >"$RUN/$name.pid"
}

# reaped PID: a daemon that ended can stay a zombie for seconds; some refuse to start while their old id exists.
reaped() {
  for ((i = 0; i < 100; i++)); do
    if [[ ! -e /proc/$1 ]] || running "$1"; then return; fi
    sleep 0.05
  done
}

# wait_until NAME SECONDS COMMAND…: until the command succeeds; the end of NAME, or of patience, is a failure.
wait_until() {
  local name=$1 deadline=$((SECONDS + $2)) pid
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! { pid=$(pid_of "$name") && running "$pid"; }; then fail_with_log "$name" 'ended while starting'; fi
    ((SECONDS < deadline)) || fail_with_log "$name" "is not ready: $*"
    sleep 0.05
  done
}

fail_with_log() {
  complain "$1 $2; the end of $LOGS/$1.log:"
  tail -n 15 "$LOGS/$1.log" | sed 's/^/    /' >&2 || true
  exit 1
}

# older_than_sources NAME FILE…: our program, or one of these files, has changed since the process was started.
older_than_sources() {
  local begun=$RUN/$1.pid
  shift
  [[ -n $(find "$REPOSITORY/src" "$REPOSITORY/migrations" "$@" -type f ! -name '*.pyc' -newer "$begun" -print -quit 2>/dev/null) ]]
}

# listens NAME PORT: our process does, not another one that took its port first.
listens() { ss -Hltnp "sport = :$2" | grep -qF "pid=$(pid_of "$1"),"; }

# Lets processes that were stopped with SIGSTOP go on: a test may have died before doing so.
thaw_all() {
  local file name
  for file in "$RUN"/*.pid; do
    [[ -e $file ]] || continue
    name=$(basename "$file" .pid)
    if alive "$name"; then kill -CONT "$(pid_of "$name")" 2>/dev/null || true; fi
  done
}

# descendants PID…: these and all that came from them.
descendants() {
  ps -e -o pid=,ppid= | awk -v wanted="$*" '
    { parent[$1] = $2 }
    END {
      split(wanted, first, " "); for (i in first) keep[first[i]] = 1
      do { grown = 0; for (p in parent) if (!(p in keep) && parent[p] in keep) { keep[p] = 1; grown = 1 } } while (grown)
      for (p in keep) if (p in parent) print p
    }'
}

# end_processes SECONDS SIGNAL PID…: asks, waits, and kills what stays.
end_processes() {
  local patience=$1 signal=$2 deadline=$((SECONDS + $1 + 1)) pid
  shift 2
  (($#)) || return 0
  kill -"$signal" "$@" 2>/dev/null || true
  kill -CONT "$@" 2>/dev/null || true
  while any_running "$@"; do
    if ((SECONDS >= deadline)); then
      complain "killed after $patience s: $*"
      kill -KILL "$@" 2>/dev/null || true
      for ((i = 0; i < 100; i++)); do any_running "$@" || break; sleep 0.05; done
      return 0
    fi
    sleep 0.05
  done
}

any_running() {
  local pid
  for pid; do running "$pid" && return 0; done
  return 1
}

# stop NAME [SIGNAL [SECONDS]]
stop() {
  if alive "$1"; then end_processes "${3:-10}" "${2:-TERM}" "$(pid_of "$1")"; fi
  rm -f "$RUN/$1.pid"
}

# Everything that carries our mark, what came from it, and jobs that name our slurm.conf and run as a
# job user (a developer's own shell may name it too, and is left alone).
leftovers() {
  local marked file pid user
  marked=$(grep -lszxF -- "$MARK" /proc/[0-9]*/environ | cut -d/ -f3 || true)
  for file in $(grep -lszxF -- "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true); do
    pid=$(cut -d/ -f3 <<<"$file")
    user=$(stat -c %U "/proc/$pid" 2>/dev/null) || continue
    [[ " ${JOB_USERS[*]} " == *" $user "* ]] && marked+=" $pid"
  done
  # shellcheck disable=SC2086  # a list of numbers
  for pid in $(descendants $marked); do
    if running "$pid"; then echo "$pid"; fi
  done
}
