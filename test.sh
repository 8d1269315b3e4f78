#!/usr/bin/env bash
# Installs what the tests need (Debian) and runs all of them. Ends with an error if a tool is missing: no test is skipped.
set -euo pipefail
cd "$(dirname "$0")"

install() { # COMMAND PACKAGE: install PACKAGE unless COMMAND is there
  command -v "$1" >/dev/null && return
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  [ -n "${updated:-}" ] || { $sudo apt-get update -qq; updated=yes; }
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"
}
install cc gcc
install curl curl
install dig bind9-dnsutils
install setpriv util-linux
install dnsperf dnsperf
install etcd etcd-server
install etcdctl etcd-client
install ip iproute2
install kdig knot-dnsutils
install nslookup bind9-dnsutils
install kubectl kubernetes-client
install named-checkzone bind9-utils
install node nodejs
install npm npm
install nft nftables
install python3 python3
install redis-server redis-server
install script bsdutils
# Not everybody's PATH leads to these.
[ -x /usr/sbin/nginx ] || install nginx nginx-light
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || install postgres postgresql
# Debian keeps what makes virtual environments apart.
python3 -c 'import ensurepip' 2>/dev/null || install virtual-environments python3-venv
for tool in cargo cc curl dig dnsperf etcd etcdctl ip kdig kubectl named-checkzone nft node npm nslookup python3 redis-cli redis-server script; do
  command -v "$tool" >/dev/null || { echo "test.sh: $tool is missing and could not be installed" >&2; exit 1; }
done

cargo fmt --all --check
cargo clippy --workspace --all-targets --quiet -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
# The end-to-end tests drive this binary. With the tests, so that dependencies are built once, for it and for them.
cargo build --workspace --bins --tests
# Most of a test's time is waiting.
RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) * 3))}" cargo test --workspace
