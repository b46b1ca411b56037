#!/bin/sh
# The part of test-install.sh that runs inside of the clean system. The packages are in /packages.
set -eu

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

step() {
    echo "== $*"
}

has_file() {
    [ -e "$1" ] || fail "$1 is missing"
}

has_no_file() {
    [ ! -e "$1" ] || fail "$1 is still there"
}

has_mode() {
    [ "$(stat -c '%a %U' "$1")" = "$2 $3" ] || fail "$1 is $(stat -c '%a %U' "$1"), not $2 $3"
}

# check_package NAME UNIT USER CONFIG PROGRAM...
check_package() {
    name=$1 unit=$2 user=$3 config=$4
    shift 4
    step "files of $name"
    [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$name")" = 'ii ' ] || fail "$name is not fully installed"
    for program in "$@"; do
        has_mode "/usr/bin/$program" 755 root
        "/usr/bin/$program" --version
        page=$(dpkg -L "$name" | grep "/man[18]/$program\.[18]\.gz$") || fail "$program has no man page"
        gzip -t "$page"
    done
    has_mode "$config" 644 root
    dpkg-query -W -f='${Conffiles}' "$name" | grep -q " $config " || fail "$config is no conffile"
    has_file "/usr/share/doc/$name/copyright"
    gzip -t "/usr/share/doc/$name/THIRD-PARTY-NOTICES.gz"

    step "user of $name"
    entry=$(getent passwd "$user") || fail "user $user does not exist"
    [ "$(id -u "$user")" -lt 1000 ] || fail "$user is no system user"
    case $entry in *:/usr/sbin/nologin) ;; *) fail "$user may log in: $entry" ;; esac

    step "unit of $name"
    systemd-analyze verify --man=no "/usr/lib/systemd/system/$unit"
    has_file "/etc/systemd/system/multi-user.target.wants/$unit"
}

step "installation"
apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends /packages/*.deb
ls /packages | grep -q '^shadowmesh-relay_' && relay=yes || relay=no
ls /packages | grep -q '^shadowmesh_' && daemon=yes || daemon=no

if [ $relay = yes ]; then
    check_package shadowmesh-relay shadowmesh-relay.service shadowmesh-relay /etc/shadowmesh/meshrelay.toml meshrelay
    step "meshrelay --check-config"
    install -d -m 700 -o shadowmesh-relay /var/lib/shadowmesh-relay
    setpriv --reuid=shadowmesh-relay --regid=shadowmesh-relay --clear-groups \
        meshrelay --config /etc/shadowmesh/meshrelay.toml --check-config
fi
if [ $daemon = yes ]; then
    check_package shadowmesh shadowmesh.service shadowmesh /etc/shadowmesh/meshd.toml meshd meshctl
    step "meshd --check-config"
    meshd --config /etc/shadowmesh/meshd.toml --check-config
    sed 's/^#\([a-z_]* = \)/\1/; s/"alice"/"root"/' /etc/shadowmesh/meshd.toml >/tmp/meshd.toml
    meshd --config /tmp/meshd.toml --check-config
    has_file /usr/share/bash-completion/completions/meshctl
    has_file /usr/share/zsh/vendor-completions/_meshctl
    has_file /usr/share/fish/vendor_completions.d/meshctl.fish
fi

step "installation of the same packages once more, with a changed configuration"
for config in /etc/shadowmesh/*.toml; do
    echo '# changed by the administrator' >>"$config"
done
apt-get install -y -qq -o Dpkg::Use-Pty=0 --reinstall /packages/*.deb
for config in /etc/shadowmesh/*.toml; do
    tail -n 1 "$config" | grep -q administrator || fail "$config was overwritten"
done

packages=$(dpkg-query -W -f='${Package} ' 'shadowmesh*')
for package in $packages; do
    install -d -m 700 -o "$package" "/var/lib/$package"
    touch "/var/lib/$package/key"
done

step "removal keeps configuration and state"
# shellcheck disable=SC2086 # names of packages, without spaces
apt-get remove -y -qq -o Dpkg::Use-Pty=0 $packages
for package in $packages; do
    has_file "/var/lib/$package/key"
    has_no_file "/usr/lib/systemd/system/$package.service"
done
has_file /etc/shadowmesh

step "purge leaves nothing but the system users"
# shellcheck disable=SC2086
apt-get purge -y -qq -o Dpkg::Use-Pty=0 $packages
for package in $packages; do
    has_no_file "/var/lib/$package"
    has_no_file "/etc/systemd/system/multi-user.target.wants/$package.service"
    has_no_file "/usr/share/doc/$package"
    has_no_file "/var/lib/systemd/deb-systemd-helper-enabled/$package.service.dsh-also"
done
has_no_file /etc/shadowmesh

echo 'PASSED'
