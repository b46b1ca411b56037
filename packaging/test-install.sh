#!/bin/sh
# Installs the packages in a clean Debian 12 and looks at what they do there: files, users, removal, purge; then boots
# that system in namespaces and starts the units in all their confinement.
#
#   packaging/test-install.sh [FILE.deb]...     those in target/debian unless told otherwise
#
# Needs root and debootstrap. The base system is fetched once and kept below ~/.cache/shadowmesh; the packages
# themselves are installed without a network. Nothing outside of a temporary directory and a control group is touched.
set -eu
cd "$(dirname "$0")/.."
cache="$HOME/.cache/shadowmesh"
base="$cache/bookworm-base.tar.zst"

[ "$(id -u)" = 0 ] || { echo 'test-install.sh: run it as root, which chroot and namespaces need' >&2; exit 1; }
if [ $# -eq 0 ]; then
    set -- "${CARGO_TARGET_DIR:-target}"/debian/shadowmesh*.deb
    [ -e "$1" ] || { echo 'test-install.sh: no packages in target/debian; run packaging/build.sh' >&2; exit 1; }
fi

work=$(mktemp -d /var/tmp/shadowmesh-install.XXXXXX)
root="$work/root"
group=
init=

cleanup() {
    # The first process of a namespace takes all others in it along.
    [ -z "$init" ] || { kill -KILL "$init" && wait "$booted"; } 2>/dev/null || true
    [ -z "$group" ] || find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ ! -e "$base" ]; then
    command -v debootstrap >/dev/null || { echo 'test-install.sh: run "apt-get install debootstrap"' >&2; exit 1; }
    echo "fetching a base system, kept as $base"
    debootstrap --variant=minbase --include=systemd,ca-certificates bookworm "$root" >"$work/log" ||
        { tail -n 20 "$work/log" >&2; exit 1; }
    mkdir -p "$cache"
    tar --zstd -cf "$base.new" -C "$root" .
    mv "$base.new" "$base"
    rm -rf "$root"
fi
mkdir "$root"
tar --zstd -xf "$base" -C "$root"
mkdir "$root/packages"
cp "$@" "$root/packages/"
cp packaging/test-install-inside.sh "$root/"

# Own mounts, processes and network: what a package starts or mounts ends with the test.
cat >"$work/enter" <<'INNER'
set -eu
root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
node() { mknod -m 666 "$root/dev/$1" c "$2" "$3"; }
node null 1 3; node zero 1 5; node full 1 7; node random 1 8; node urandom 1 9; node tty 5 0; node net/tun 10 200
mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ip link set lo up
if [ "$1" = /lib/systemd/systemd ]; then
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
fi
# Not chroot: from inside of one nobody makes the user namespaces that confine units.
cd "$root"
pivot_root . mnt
cd /
umount --lazy /mnt
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
INNER
namespaces='--mount --pid --fork --ipc --uts --net'

# shellcheck disable=SC2086 # several options
unshare $namespaces sh "$work/enter" "$root" sh /test-install-inside.sh packages

hierarchy=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) || true
group="$hierarchy/shadowmesh-install-$$"
if [ -z "$hierarchy" ] || ! mkdir "$group" 2>/dev/null; then
    group=
    echo 'SKIPPED: the units are not started, because no control group (cgroup2) can be made here'
    exit 0
fi
# shellcheck disable=SC2016,SC2086
sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec unshare --cgroup "$@"' sh "$group" $namespaces \
    sh "$work/enter" "$root" /lib/systemd/systemd --system --show-status=no --log-target=journal 2>"$work/boot" &
booted=$!

inside() {
    nsenter --target "$init" --mount --pid --net --ipc --uts --cgroup "$@"
}
# "degraded" is a unit of the base system that has no business in a container.
is_up() {
    init=$(pgrep -P "$booted" -x systemd) || return 1
    case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) return 1 ;; esac
}
attempts=0
until is_up; do
    attempts=$((attempts + 1))
    [ $attempts -lt 120 ] || { cat "$work/boot" >&2; echo 'test-install.sh: the system did not boot' >&2; exit 1; }
    sleep 0.5
done
inside sh /test-install-inside.sh units
