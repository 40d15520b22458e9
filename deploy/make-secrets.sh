#!/bin/sh
# Creates the secrets that compose.yaml mounts, in deploy/secrets or in the given folder. It can be run repeatedly, and keeps
# existing secrets. Keep a copy of master_keys elsewhere: without it, the secrets in the database can't be opened.
set -eu
umask 077

dir=${1:-$(dirname "$0")/secrets}
mkdir -p "$dir"
# Compose mounts each file with its mode and owner, and Assay and Postgres run as their own users there, so all users can read the
# files. The folder, which isn't mounted, keeps out the other users of this machine.
chmod 700 "$dir"

# keep NAME VALUE: stores the value, unless the secret exists. The link makes the file appear completely or not at all, and fails
# if it exists.
keep() {
    if [ -e "$dir/$1" ]; then
        echo "$1: kept"
        return
    fi
    printf '%s' "$2" >"$dir/.$1.$$"
    chmod 444 "$dir/.$1.$$"
    ln "$dir/.$1.$$" "$dir/$1" || { rm -f "$dir/.$1.$$"; return 1; }
    rm -f "$dir/.$1.$$"
    echo "$1: created"
}

# On a separate line, so that a failing openssl ends the script before a secret is stored.
master_key=$(openssl rand -base64 32)
admin_token=$(openssl rand -hex 32)
service=$(openssl rand -hex 32)
password=$(openssl rand -hex 32)

if [ -e "$dir/database_url" ] && [ ! -e "$dir/postgres_password" ]; then
    echo "postgres_password is missing: copy the password from database_url into it" >&2
    exit 1
fi

keep master_keys "m1:$master_key"
keep admin_token "$admin_token"
keep services "demo:introspect:$service"
keep postgres_password "$password"
keep database_url "postgres://assay:$(cat "$dir/postgres_password")@postgres:5432/assay"
