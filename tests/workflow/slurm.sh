#!/usr/bin/env bash
# A Slurm of one node, for tests: Debian's slurm-wlm and munge, as root, without systemd. `slurm.sh start` and `slurm.sh stop`.
set -euo pipefail

stop() {
  for name in slurmd slurmctld munged; do
    file="/run/shapeflow-slurm/$name.pid"
    [[ -f "$file" ]] && kill "$(cat "$file")" 2>/dev/null || true
  done
  rm -rf /run/shapeflow-slurm
}

start() {
  host="$(hostname -s)"
  cores="$(nproc)"
  memory="$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)"
  mkdir -p /run/shapeflow-slurm /var/spool/slurmctld /var/spool/slurmd /run/munge /etc/slurm /var/log/munge /var/lib/munge
  [[ -f /etc/munge/munge.key ]] || (umask 077 && head -c 1024 /dev/urandom > /etc/munge/munge.key)
  chown -R munge:munge /etc/munge /run/munge /var/log/munge /var/lib/munge
  chmod 755 /run/munge
  runuser -u munge -- /usr/sbin/munged --pid-file=/run/munge/munged.pid
  cp /run/munge/munged.pid /run/shapeflow-slurm/munged.pid
  cat > /etc/slurm/slurm.conf <<CONF
ClusterName=shapeflow
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmUser=root
SlurmctldPidFile=/run/shapeflow-slurm/slurmctld.pid
SlurmdPidFile=/run/shapeflow-slurm/slurmd.pid
SlurmctldLogFile=/run/shapeflow-slurm/slurmctld.log
SlurmdLogFile=/run/shapeflow-slurm/slurmd.log
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
MinJobAge=300
SchedulerParameters=sched_interval=1,batch_sched_delay=1
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
  echo "NodeName=$host Name=gpu File=/dev/null" > /etc/slurm/gres.conf
  /usr/sbin/slurmctld
  /usr/sbin/slurmd
  for _ in $(seq 60); do
    if sinfo --noheader --format=%t 2>/dev/null | grep -q idle; then
      echo "slurm is up"
      return
    fi
    sleep 0.5
  done
  sinfo || true
  tail -n 20 /run/shapeflow-slurm/*.log
  exit 1
}

"${1:-start}"
