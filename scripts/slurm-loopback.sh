#!/usr/bin/env bash
# Starts a Slurm cluster of several nodes on this machine, for trials of srun and sbatch without a cluster; needs root and Debian's packages slurm-wlm, munge and,
# for srun --mpi=pmix, libpmix-dev.
#
#     scripts/slurm-loopback.sh start DIR [NODES]    writes DIR/slurm.conf; then: export SLURM_CONF=DIR/slurm.conf
#     scripts/slurm-loopback.sh stop DIR
set -euo pipefail

usage() {
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
[ $# -ge 2 ] || usage
command=$1 nodes=${3:-2}
mkdir -p "$2"
folder=$(cd "$2" && pwd)
export SLURM_CONF="$folder/slurm.conf"

case $command in
start)
    host=$(hostname)
    mkdir -p "$folder/state" "$folder/log"
    for node in $(seq "$nodes"); do mkdir -p "$folder/spool-n$node" "$folder/tmp-n$node"; done
    cat >"$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
TmpFS=$folder/tmp-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-$((17000 + nodes))] CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
    if ! pgrep -x munged >/dev/null; then
        mkdir -p /run/munge
        chown munge /run/munge
        su munge -s /bin/sh -c munged
    fi
    slurmctld
    for node in $(seq "$nodes"); do slurmd -N "n$node"; done
    for _ in $(seq 60); do
        [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | wc -l)" -eq "$nodes" ] && exit 0
        sleep 0.5
    done
    echo "not all of the $nodes nodes came up; see $folder/log" >&2
    exit 1
    ;;
stop)
    for pid in "$folder"/*.pid; do
        if [ -e "$pid" ]; then kill "$(cat "$pid")"; fi
    done
    ;;
*) usage ;;
esac
