#!/usr/bin/env bash
# All tests: formats, lints, unit, property, simulation, house and process tests, fuzz corpora, the docs' commands.
# Installs the real clients that the process tests talk with, where it may. Used by people and by .ci/run alike.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

# The process tests use real clients; each is named here with the package that has it.
need=()
for pair in dig:bind9-dnsutils delv:bind9-dnsutils unbound:unbound kdig:knot-dnsutils curl:curl h2load:nghttp2-client gtlsclient:ngtcp2-client openssl:openssl knotd:knot nsd:nsd named:bind9 gdnsd:gdnsd nginx:nginx-light haproxy:haproxy chromium:chromium ip:iproute2; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || need+=("${pair##*:}")
done
# PostgreSQL's server stands outside the path where Debian puts it; the tests run servers of their own with it.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null 2>&1 || need+=(postgresql)
for pair in grpc:python3-grpcio websockets:python3-websockets jsonschema:python3-jsonschema; do
  /usr/bin/python3 -c "import ${pair%%:*}" 2>/dev/null || need+=("${pair##*:}")
done
fc-list : family 2>/dev/null | grep -qi "wenquanyi\|noto sans cjk" || need+=(fontconfig fonts-wqy-microhei) # the page speaks Chinese
if ((${#need[@]})); then
  step "install ${need[*]}"
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  if command -v apt-get >/dev/null 2>&1 && $sudo true 2>/dev/null; then
    $sudo apt-get update -q >/dev/null
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${need[@]}" >/dev/null
  else
    echo "please install: ${need[*]} (the tests that need them will fail and say so)"
  fi
fi

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --quiet --all-targets --locked -- -D warnings
cargo clippy --quiet --all-targets --locked --features otlp -- -D warnings

step "tests"
cargo test --quiet --locked --lib --bins --tests --examples
cargo test --quiet --locked --doc

step "tests of what is off by default (otlp)"
cargo test --quiet --locked --features otlp --lib -- proxy::tests::tracing:: proxy::tests::logging:: proxy::export:: config::

step "one crypto provider"
if cargo tree --locked --edges normal --invert ring 2>/dev/null | grep -q .; then
  echo "ring has come into the tree"; exit 1
fi

step "all good"
