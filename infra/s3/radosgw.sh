#!/usr/bin/env bash
# A throw-away S3 server on the loopback: Ceph's radosgw over one monitor and one object store that lives in memory.
#
#     infra/s3/radosgw.sh start FOLDER        a few seconds; makes FOLDER, and in it env, to be sourced
#     infra/s3/radosgw.sh stop FOLDER         ends its three daemons and removes FOLDER
#     source FOLDER/env                       endpoint and keys for promptmint and for boto3
#
# Debian and Ubuntu: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-mgr ceph-common
# For tests only: no replicas, no authentication between the daemons, and everything is gone when it stops.
set -euo pipefail

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 64
}

say_and_fail() {
    echo "radosgw.sh: $1" >&2
    exit 1
}

# free_ports N: N ports of the loopback on which nothing listens now.
free_ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))
PYTHON
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local limit=$1 what=$2
    local deadline=$((SECONDS + limit))
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || say_and_fail "$what did not come up in $limit s: see $folder/*.log"
        sleep 0.2
    done
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

osd_is_up() { ceph -c "$conf" --connect-timeout 5 osd stat | grep -q "1 up"; }

# Right after its birth the object store may meet a monitor that does not know it yet ("wrong fsid"): start it again.
osd_comes_up() {
    if ! kill -0 "$(cat "$folder/osd.0.pid" 2>/dev/null)" 2>/dev/null; then
        ceph-osd -c "$conf" -i 0
    fi
    osd_is_up
}

start() {
    for program in ceph ceph-mon ceph-osd monmaptool radosgw radosgw-admin; do
        command -v "$program" >/dev/null || say_and_fail "$program is not installed; the head of this script says how."
    done
    [[ -z $(ls -A "$folder" 2>/dev/null) ]] || say_and_fail "$folder is not empty: stop it, or name another."
    mkdir -p "$folder"/{mon,osd,run}
    chmod 700 "$folder"
    local fsid mon_port s3_port access secret
    fsid=$(cat /proc/sys/kernel/random/uuid)
    access=test-$(cut -c 1-8 /proc/sys/kernel/random/uuid)
    secret=$(cat /proc/sys/kernel/random/uuid)
    read -r mon_port s3_port < <(free_ports 2)
    cat >"$conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$mon_port/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = $folder/run
admin socket = $folder/run/\$name.asok
pid file = $folder/\$name.pid
log file = $folder/\$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
paxos propose interval = 0.05
paxos min wait = 0.01
mon data avail warn = 1
mon data avail crit = 1
[mon]
mon data = $folder/mon
[osd]
osd data = $folder/osd
osd objectstore = memstore
memstore device bytes = 2147483648
[client]
rgw frontends = beast endpoint=127.0.0.1:$s3_port
rgw data = $folder/run
CONF
    monmaptool --create --addv a "[v2:127.0.0.1:$mon_port]" --fsid "$fsid" "$folder/monmap" >/dev/null
    ceph-mon -c "$conf" --mkfs -i a --monmap "$folder/monmap"
    ceph-mon -c "$conf" -i a
    wait_for 30 "the monitor" ceph -c "$conf" --connect-timeout 5 mon stat
    ceph -c "$conf" osd create "$fsid" >/dev/null
    ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$fsid" 2>/dev/null
    ceph-osd -c "$conf" -i 0 2>/dev/null
    wait_for 30 "the object store" osd_comes_up
    radosgw-admin -c "$conf" user create --uid=tests --display-name=tests \
        --access-key="$access" --secret-key="$secret" >/dev/null 2>"$folder/admin.log"
    radosgw -c "$conf" -n client.rgw 2>/dev/null
    wait_for 60 "the S3 server" answers "$s3_port"
    cat >"$folder/env" <<ENV
export PROMPTMINT_S3_ENDPOINT=http://127.0.0.1:$s3_port
export PROMPTMINT_S3_PATH_STYLE=true
export AWS_ACCESS_KEY_ID=$access
export AWS_SECRET_ACCESS_KEY=$secret
export AWS_DEFAULT_REGION=us-east-1
ENV
    echo "S3 on http://127.0.0.1:$s3_port; source $folder/env"
}

stop() {
    [[ -e "$conf" ]] || return 0
    local file pid
    for file in "$folder"/{client.rgw,osd.0,mon.a}.pid; do
        pid=$(cat "$file" 2>/dev/null) || continue
        # A number in a file may belong to somebody else by now: end it only if it runs on this configuration.
        tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$conf" && kill -9 "$pid" || true
    done
    rm -rf -- "${folder:?}"
}

[[ $# -eq 2 ]] || usage
folder=$(realpath -m -- "$2")
conf=$folder/ceph.conf
case $1 in
start | stop) "$1" ;;
*) usage ;;
esac
