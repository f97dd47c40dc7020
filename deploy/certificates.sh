#!/usr/bin/env bash
# A small certificate authority for a fleet: a folder with its CA, and one certificate and key for each name.
#
#   certificates.sh DIR ca                        makes DIR/ca.pem and DIR/ca.key
#   certificates.sh DIR server NAME HOST...       DIR/NAME.pem, NAME.key; HOST: the names and addresses clients dial
#   certificates.sh DIR client NAME               DIR/NAME.pem, NAME.key; NAME as in the server's --roles file
#
# DAYS (default 365) is how long a certificate is valid. A name that is given again gets a new certificate and key, in
# place of the old: programs read them again by themselves. ca.key signs; DIR belongs on a machine that is none of the
# fleet. Copy NAME.pem, NAME.key and ca.pem from it. All files are their owner's alone; where a daemon runs as a user of
# its own, install them for its group: install -m 0640 -g attnfleet ca.pem server.pem server.key /etc/attnfleet
set -euo pipefail

die() { printf 'certificates.sh: %s\n' "$*" >&2; exit 2; }

days=${DAYS:-365}
[ $# -ge 2 ] || die "give DIR and one of ca, server, client (see the first lines of this file)"
dir=$1 kind=$2
shift 2
command -v openssl >/dev/null || die "openssl is missing (Debian package openssl)"
umask 077
mkdir -p "$dir"

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

# issue NAME EXTENSIONS: into new files that then take the place of the old, within a moment. A program that reads just
# between the two has a pair that does not fit until it reads again, a second later.
issue() {
  local name=$1 extensions=$2 new
  [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$ && $name != ca ]] ||
    die "\"$name\" is no name; 1 to 64 letters, digits and . _ - @ are possible, a letter or digit first, not \"ca\""
  [ -f "$dir/ca.key" ] || die "there is no $dir/ca.key; make it with: certificates.sh $dir ca"
  new=$(mktemp -d "$dir/.new.XXXXXX")
  trap 'rm -rf "$new"' RETURN
  new_key "$new/key"
  openssl req -new -key "$new/key" -subj "/CN=$name" -out "$new/request"
  openssl x509 -req -in "$new/request" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -days "$days" -sha256 \
    -extfile <(printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" "$extensions") \
    -out "$new/pem" 2>"$new/log" || { cat "$new/log" >&2; die "openssl could not sign $name"; }
  mv "$new/pem" "$dir/$name.pem"
  mv "$new/key" "$dir/$name.key"
}

case $kind in
  ca)
    [ $# -eq 0 ] || die "ca takes nothing more"
    [ ! -e "$dir/ca.key" ] || die "there is a $dir/ca.key already; what it has signed would be worth nothing"
    new_key "$dir/ca.key"
    openssl req -x509 -new -key "$dir/ca.key" -sha256 -days 3650 -subj "/CN=attnfleet CA" -out "$dir/ca.pem" \
      -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
    ;;
  server)
    [ $# -ge 2 ] || die "server needs NAME HOST..."
    name=$1 names=
    shift
    for host in "$@"; do
      if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=,IP:$host; else names+=,DNS:$host; fi
    done
    issue "$name" $'extendedKeyUsage=serverAuth\nsubjectAltName='"${names#,}"
    ;;
  client)
    [ $# -eq 1 ] || die "client needs NAME"
    issue "$1" "extendedKeyUsage=clientAuth"
    ;;
  *) die "\"$kind\" is unknown; there are ca, server, client" ;;
esac
