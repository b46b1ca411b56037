#!/bin/sh
# Installs the packages in a clean Debian 12 and looks at what they do there, removal and purge included.
#
#   packaging/test-install.sh [FILE.deb]...     those in target/debian unless told otherwise
#
# Needs root and debootstrap. The base system is fetched once and kept below ~/.cache/shadowmesh; the packages
# themselves are installed without a network. Nothing outside of the temporary directory is touched.
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
trap 'rm -rf --one-file-system "$work"' EXIT INT TERM
root="$work/root"

if [ ! -e "$base" ]; then
    command -v debootstrap >/dev/null || { echo 'test-install.sh: run "apt-get install debootstrap"' >&2; exit 1; }
    echo "fetching a base system, kept as $base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,ca-certificates bookworm "$root" >"$work/log" ||
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
unshare --mount --pid --fork --ipc --uts --net sh -c '
    mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/dev" -o mode=755 &&
    mknod -m 666 "$1/dev/null" c 1 3 && mknod -m 666 "$1/dev/urandom" c 1 9 && mkdir "$1/dev/net" &&
    mknod -m 666 "$1/dev/net/tun" c 10 200 && ip link set lo up &&
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        chroot "$1" sh /test-install-inside.sh
' sh "$root"
