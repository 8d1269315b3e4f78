#!/usr/bin/env bash
# Shows that a claim's size is enforced where the file system can: petset on ext4 and on xfs with project quotas.
# Many kernels are built without them, so this boots one that has them, user-mode Linux, which is an ordinary process:
# no root, no virtual machine. `./test.sh` does not run this, because only Debian has that kernel as a package.
#   cargo build --workspace && e2e/quota.sh [ext4|xfs]...
# Needs kubectl, python3, mkfs.ext4, and mkfs.xfs (package xfsprogs) for xfs.
set -euo pipefail
cd "$(dirname "$0")/.."
petset=$PWD/target/debug/petset
[ -x "$petset" ] || { echo "quota.sh: $petset is missing: run cargo build --workspace first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cp "$petset" "$work/petset"

# The kernel and its modules, unpacked but not installed.
(cd "$work" && apt-get download -qq user-mode-linux 2>/dev/null && dpkg -x user-mode-linux_*.deb kernel)
modules=$(echo "$work"/kernel/usr/lib/uml/modules/*/kernel/fs/quota)

cat > "$work/set.yaml" <<'YAML'
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: shell
        command: [sh, -c, "dd if=/dev/zero of=/data/big bs=64k count=1024; echo dd ended with $?; sleep 1000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 16Mi}}
YAML

# What runs inside, as its first process; the host's files are its root.
cat > "$work/init" <<'INIT'
#!/bin/bash
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /mnt
trap 'echo o > /proc/sysrq-trigger; sleep 9' EXIT
/usr/bin/python3 - "$MODULES" <<'PYTHON'
import ctypes, fcntl, socket, struct, sys
libc = ctypes.CDLL(None)
for module in ("quota_tree", "quota_v2"):
    with open(f"{sys.argv[1]}/{module}.ko", "rb") as file:
        libc.syscall(313, file.fileno(), b"", 0)  # finit_module
with socket.socket() as any_socket:  # lo up
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))
PYTHON
mkdir /mnt/d
mount -t "$FS" -o prjquota /dev/ubda /mnt/d || exit
grep ubda /proc/mounts

petset=$WORK/petset
export PETSET_DATA_DIR=/mnt/d/data KUBECONFIG=/mnt/d/data/kubeconfig
check() { # WHAT COMMAND...: it must come to succeed
  for _ in $(seq 60); do "${@:2}" > /mnt/said 2>&1 && { echo "ok: $1"; return; }; sleep 1; done
  echo "FAILED: $1"; cat /mnt/said /mnt/up; exit
}
logs() { kubectl logs db-0 | grep -q "$1"; }
percent() { "$petset" status | grep -Eq "^default/data-db-0 .* $1 +100% +yes$"; }
up() { "$petset" up "$@" > /mnt/up 2>&1 & pid=$!; }

up -f "$WORK/set.yaml"
check "dd is refused past 16Mi" logs "dd ended with 1"
kubectl logs db-0
check "status says so" percent 16Mi
"$petset" status | tail -2
lsattr -pd /mnt/d/data/volumes/*
kill -9 $pid; wait $pid 2>/dev/null
up
check "after kill -9 it still holds" percent 16Mi
kubectl patch pvc data-db-0 -p '{"spec":{"resources":{"requests":{"storage":"32Mi"}}}}'
check "the claim has grown" sh -c "$petset status | grep -Eq ' 32Mi .* yes$'"
kubectl delete pod db-0
check "dd is refused past 32Mi" percent 32Mi
check "no warning is needed" sh -c "kubectl get events | grep -q VolumeOverCapacity && exit 1 || exit 0"
kubectl delete sts db
kubectl wait --for=delete pod/db-0 --timeout=60s
check "the claim goes with its data" "$petset" volumes prune --yes data-db-0
check "the directory is gone" sh -c '[ -z "$(ls /mnt/d/data/volumes)" ]'
echo PASSED
INIT
chmod +x "$work/init"

failed=0
for fs in "${@:-ext4}"; do
  rm -f "$work/disk"
  truncate -s 512M "$work/disk"
  case $fs in
    ext4) mkfs.ext4 -q -O quota,project "$work/disk" ;;
    xfs) mkfs.xfs -q "$work/disk" ;;
    *) echo "quota.sh: $fs has no project quotas: ext4 or xfs" >&2; exit 1 ;;
  esac
  # Words after -- are the first process's; NAME=VALUE words its environment.
  timeout 300 "$work"/kernel/usr/bin/linux.uml mem=1G quiet rw root=/dev/root rootfstype=hostfs rootflags=/ \
    ubd0="$work/disk" init="$work/init" con=null con0=null,fd:1 FS="$fs" WORK="$work" MODULES="$modules" \
    < /dev/null 2>&1 | tee "$work/log"
  grep -q ^PASSED "$work/log" || failed=1
done
[ $failed = 0 ] || { echo "quota.sh: not enforced as it should be, see above" >&2; exit 1; }
