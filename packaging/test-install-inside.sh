#!/bin/sh
# The parts of test-install.sh that run inside of the clean system: "packages" without, "units" with systemd running.
# The packages are in /packages.
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

holds() {
    ls "/packages/$1"_*.deb >/dev/null 2>&1
}

apt_get() {
    verb=$1
    shift
    apt-get "$verb" --yes -qq -o Dpkg::Use-Pty=0 "$@"
}

# Files, users, configuration, removal and purge; nothing runs.
test_packages() {
    step "installation"
    apt_get install /packages/*.deb

    if holds shadowmesh-relay; then
        check_package shadowmesh-relay shadowmesh-relay.service shadowmesh-relay /etc/shadowmesh/meshrelay.toml meshrelay
        step "meshrelay --check-config"
        install -d -m 700 -o shadowmesh-relay /var/lib/shadowmesh-relay
        setpriv --reuid=shadowmesh-relay --regid=shadowmesh-relay --clear-groups \
            meshrelay --config /etc/shadowmesh/meshrelay.toml --check-config
    fi
    if holds shadowmesh; then
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
    apt_get install --reinstall /packages/*.deb
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
    apt_get remove $packages
    for package in $packages; do
        has_file "/var/lib/$package/key"
        has_no_file "/usr/lib/systemd/system/$package.service"
    done
    has_file /etc/shadowmesh

    step "purge leaves nothing but the system users"
    # shellcheck disable=SC2086
    apt_get purge $packages
    for package in $packages; do
        has_no_file "/var/lib/$package"
        has_no_file "/etc/systemd/system/multi-user.target.wants/$package.service"
        has_no_file "/usr/share/doc/$package"
        has_no_file "/var/lib/systemd/deb-systemd-helper-enabled/$package.service.dsh-also"
    done
    has_no_file /etc/shadowmesh
}

# Starts and stops both units; systemd runs, and so do the maintainer scripts that talk to it.
test_units() {
    step "the units start by themselves after installation"
    apt_get install /packages/*.deb
    for unit in shadowmesh-relay shadowmesh; do
        holds $unit || continue
        systemctl is-active --quiet $unit || { journalctl --no-pager -o cat -u $unit >&2; fail "$unit does not run"; }
        has_mode "/var/lib/$unit" 700 $unit
        [ "$(stat -c %U "/proc/$(systemctl show -P MainPID $unit)")" = $unit ] || fail "$unit is not its own user"
    done
    if holds shadowmesh-relay; then
        address=$(runuser -u shadowmesh-relay -- meshrelay --print-pin)
        journalctl --no-pager -o cat -u shadowmesh-relay | grep -qF "$address" ||
            fail "the relay did not say its address $address in its log"
    fi
    if holds shadowmesh; then
        has_mode /run/shadowmesh/meshd.sock 660 shadowmesh
        code=0
        meshctl status || code=$?
        [ $code -eq 4 ] || fail "meshctl status ended with $code, not with 4 for a node in no network"
    fi

    if holds shadowmesh && holds shadowmesh-relay; then
        step "the confined daemon creates a network over the confined relay"
        pin=${address#*#}
        meshctl up --new home --name first --relay "wss://127.0.0.1:8443#$pin" --timeout 30
        has_file /sys/class/net/mesh0
        [ "$(cat /proc/sys/net/ipv6/conf/mesh0/accept_ra)" = 0 ] || fail "mesh0 would follow routers of peers"
        meshctl down
        wait_for "the interface is gone" test ! -e /sys/class/net/mesh0
        if journalctl --no-pager -o cat -u shadowmesh -u shadowmesh-relay | grep -E ' (WARN|ERROR) '; then
            fail "the programs complained"
        fi
    fi

    step "the units come back after a crash and stop when told"
    for unit in shadowmesh-relay shadowmesh; do
        holds $unit || continue
        systemctl kill --signal=KILL $unit
        wait_for "$unit runs again" sh -c "[ \"\$(systemctl show -P NRestarts $unit)\" = 1 ] && systemctl is-active -q $unit"
        timeout 15 systemctl stop $unit || fail "$unit does not stop"
        [ "$(systemctl show -P Result $unit)" = success ] || fail "$unit stopped with $(systemctl show -P Result $unit)"
        systemctl start $unit
    done

    step "purge stops them"
    for unit in shadowmesh-relay shadowmesh; do
        holds $unit || continue
        apt_get purge $unit
        ! systemctl is-active --quiet $unit || fail "$unit still runs"
        has_no_file "/var/lib/$unit"
    done
}

# wait_for WHAT COMMAND...
wait_for() {
    what=$1
    shift
    attempts=0
    until "$@"; do
        attempts=$((attempts + 1))
        [ $attempts -lt 100 ] || fail "not within 20 s: $what"
        sleep 0.2
    done
}

case $1 in
packages) test_packages ;;
units) test_units ;;
esac
echo "PASSED: $1"
