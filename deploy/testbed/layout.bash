# shellcheck shell=bash disable=SC2034  # the names below are for the scripts that source this file
# Where everything of one testbed lives. Sourced first by every script of this folder.
#
# One testbed = one root directory + one range of ports. Two of them run side by side with another
# TESTBED_ROOT, TESTBED_PORT_BASE and TESTBED_ENV.

# System programs only: a private python3 in the caller's PATH must not leak into daemons and jobs.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8
umask 022

TESTBED=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$TESTBED/../.." && pwd)

TESTBED_ROOT=${TESTBED_ROOT:-/var/lib/stagecoach-testbed}
TESTBED_ENV=${TESTBED_ENV:-$REPOSITORY/.testbed/env}
VENV=${VENV:-$REPOSITORY/.venv}
S3=${S3:-rgw}
STAGECOACH=${STAGECOACH:-1}
# In the homes, which testbeds share: an audit removes what is not its service's. Remembered, as the ports are.
[[ -n ${WORK_DIRECTORY_NAME:-} || ! -s $TESTBED_ROOT/work-directory-name ]] || WORK_DIRECTORY_NAME=$(<"$TESTBED_ROOT/work-directory-name")
WORK_DIRECTORY_NAME=${WORK_DIRECTORY_NAME:-.stagecoach}

ROOT_MARKER=$TESTBED_ROOT/.stagecoach-testbed # only a directory holding this file is ever wiped
RUN=$TESTBED_ROOT/run                         # NAME.pid of every process started here
LOGS=$TESTBED_ROOT/log                        # NAME.log
PUBLISHED=$TESTBED_ROOT/published             # what each component adds to the environment file
KEYS=$TESTBED_ROOT/keys                       # private SSH keys of the job users

MUNGE=$TESTBED_ROOT/munge
MARIADB=$TESTBED_ROOT/mariadb
SLURM=$TESTBED_ROOT/slurm
SSHD=$TESTBED_ROOT/sshd
POSTGRESQL=$TESTBED_ROOT/postgresql
CEPH=$TESTBED_ROOT/ceph
RCLONE=$TESTBED_ROOT/rclone
SERVICE=$TESTBED_ROOT/stagecoach
NODES=$TESTBED_ROOT/nodes # a/ and b/: send, receive and state directory of a data transfer node

MUNGE_SOCKET=$MUNGE/munge.socket
SLURM_CONF=$SLURM/slurm.conf
SLURM_JWT_KEY=$SLURM/jwt.key
JOB_USERS=(alice bob)
NODE_NETWORK_A=testbed${TESTBED_ROOT//\//+}+a # network namespaces have the machine for their scope
NODE_NETWORK_B=testbed${TESTBED_ROOT//\//+}+b
SERVICE_ACCOUNT=xferd # may become a job user, and nothing else

complain() { printf 'testbed: %s\n' "$*" >&2; }
fail() { complain "$@"; exit 1; }

# A root that could be something else than a testbed is refused, by `up` and by `down --wipe` alike.
check_root_name() {
  [[ $TESTBED_ROOT =~ ^(/[A-Za-z0-9._-]+){2,}$ && $TESTBED_ROOT != */.* ]] ||
    fail "TESTBED_ROOT=$TESTBED_ROOT: give an absolute path, two levels deep or more, of plain letters"
  [[ ${#TESTBED_ROOT} -le 60 ]] || fail "TESTBED_ROOT=$TESTBED_ROOT: too long for the unix sockets under it"
  case $TESTBED_ROOT in
    /var/lib | /var/log | /var/cache | /var/tmp | /usr/* | /etc/* | /bin/* | /sbin/* | /lib*/* | /boot/* | /dev/* | /proc/* | /sys/* | /root/.*)
      fail "TESTBED_ROOT=$TESTBED_ROOT belongs to the operating system" ;;
  esac
  [[ $REPOSITORY/ != "$TESTBED_ROOT"/* ]] || fail "TESTBED_ROOT=$TESTBED_ROOT holds this repository"
}

# The ports a testbed was made with are part of its state (Ceph's monitor map names them).
read_port_base() {
  local made_with=''
  [[ -s $TESTBED_ROOT/port-base ]] && made_with=$(<"$TESTBED_ROOT/port-base")
  PORT_BASE=${TESTBED_PORT_BASE:-${made_with:-17000}}
  [[ $PORT_BASE =~ ^[0-9]+$ && $PORT_BASE -ge 1024 && $PORT_BASE -le 65000 ]] || fail "TESTBED_PORT_BASE=$PORT_BASE: not a usable port"
  [[ -z $made_with || $made_with == "$PORT_BASE" ]] ||
    fail "$TESTBED_ROOT was made with TESTBED_PORT_BASE=$made_with: keep it, or wipe first (down --wipe)"

  PORT_STAGECOACH=$((PORT_BASE + 0))
  PORT_SLURMCTLD=$((PORT_BASE + 2))
  PORT_SLURMDBD=$((PORT_BASE + 5))
  PORT_MARIADB=$((PORT_BASE + 6))
  PORT_SLURMD_N1=$((PORT_BASE + 11))
  PORT_SLURMD_N2=$((PORT_BASE + 12))
  PORT_SLURMRESTD=$((PORT_BASE + 20))
  PORT_SSHD=$((PORT_BASE + 22))
  PORT_POSTGRESQL=$((PORT_BASE + 32))
  PORT_RGW=$((PORT_BASE + 80))
  PORT_RCLONE=$((PORT_BASE + 81))
  PORT_SLOW_PROXY=$((PORT_BASE + 82)) # of a proxy that a test may start: jobs of the system testbed-slow go through it
  PORT_RECEIVER=$((PORT_BASE + 83))   # of each node's receiver, in the node's own network
  PORT_CEPH_MON_V2=$((PORT_BASE + 90))
  PORT_CEPH_MON_V1=$((PORT_BASE + 91))
  PORT_CEPH_FIRST=$((PORT_BASE + 100)) # osd and mgr take some of these
  PORT_CEPH_LAST=$((PORT_BASE + 199))
}

# Makes the root directory, or accepts one made before. Every component may be started alone.
prepare_root() {
  [[ $EUID == 0 ]] || fail 'run as root: the daemons and jobs run as several users'
  check_root_name
  read_port_base
  check_parents
  if [[ ! -e $ROOT_MARKER ]]; then
    [[ ! -d $TESTBED_ROOT || -z $(ls -A "$TESTBED_ROOT") ]] || fail "$TESTBED_ROOT is not empty and not a testbed"
    mkdir -p "$TESTBED_ROOT"
    chmod 755 "$TESTBED_ROOT"
    echo 'All of this directory is deleted by deploy/testbed/down --wipe.' >"$ROOT_MARKER"
  fi
  mkdir -p "$RUN" "$LOGS"
  install -d -m 700 "$PUBLISHED" "$KEYS"
  [[ -s $TESTBED_ROOT/port-base ]] || echo "$PORT_BASE" >"$TESTBED_ROOT/port-base"
  echo "$WORK_DIRECTORY_NAME" >"$TESTBED_ROOT/work-directory-name"
}

# sshd (StrictModes) refuses keys under a directory that others may write; jobs must be able to walk in.
check_parents() {
  local directory=$TESTBED_ROOT mode
  while [[ ! -d $directory ]]; do directory=$(dirname "$directory"); done
  while [[ $directory != / ]]; do
    mode=$(stat -L -c %a "$directory")
    (((8#$mode & 8#022) == 0)) || fail "TESTBED_ROOT: others can write to $directory, sshd would refuse its keys"
    (((8#$mode & 8#001) == 1)) || fail "TESTBED_ROOT: the job users cannot pass through $directory"
    directory=$(dirname "$directory")
  done
}

# random_word FILE: a secret of 40 letters and digits, made once, readable by root only.
random_word() {
  if [[ ! -s $1 ]]; then
    (umask 077 && head -c 20 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$1.new" && mv "$1.new" "$1")
  fi
  cat "$1"
}

# write_if_changed FILE MODE OWNER <text: true when the file was changed.
write_if_changed() {
  (umask 077 && cat >"$1.new")
  chmod "$2" "$1.new"
  chown "$3" "$1.new"
  if cmp -s "$1.new" "$1"; then
    rm "$1.new"
    return 1
  fi
  mv "$1.new" "$1"
}

# publish COMPONENT KEY=value…: what this component contributes to the environment file.
publish() {
  local component=$1 pair value
  shift
  for pair; do
    value=${pair#*=}
    printf "%s='%s'\n" "${pair%%=*}" "${value//\'/\'\\\'\'}"
  done | (umask 077 && cat >"$PUBLISHED/$component.new" && mv "$PUBLISHED/$component.new" "$PUBLISHED/$component")
}
