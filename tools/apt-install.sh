#!/bin/sh
# apt-install.sh PACKAGE...: as root, installs those of the packages that apt has and that are not installed, without a
# question. Where apt fails, its first error is the one line to read.
set -u
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# If one of several repositories does not answer, another may still have the package.
apt-get --quiet update >"$log" 2>&1 || true
# One unknown name would keep apt from installing all the others.
wanted=
for package in "$@"; do
    if apt-get --simulate install "$package" 2>>"$log" | grep -q '^Inst '; then
        wanted="$wanted $package"
    fi
done
if [ -n "$wanted" ]; then
    echo "kerasoptimizers: installing with apt-get:$wanted"
    # shellcheck disable=SC2086 # one word for each package
    apt-get --quiet --yes --no-install-recommends install $wanted >"$log" 2>&1 && exit 0
fi
if error=$(grep -m 1 -E '^(E|Err):' "$log"); then
    echo "kerasoptimizers: apt-get could not install ${wanted:-$*}: $error" >&2
    exit 1
fi
