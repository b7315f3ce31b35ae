#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make_venv.sh PYTHON FOLDER: a virtual environment with pip, or a message that says what to do.
set -eu
python=$1
venv=$2

if ! command -v "$python" >/dev/null 2>&1; then
    echo "feagi-io: no '$python' here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    found=$("$python" -c 'import platform; print(platform.python_version())')
    echo "feagi-io: '$python' is Python $found, 3.11 or newer is needed; name another: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi

# Debian and Ubuntu split the module that puts pip into a new environment from python3 itself.
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package="python$version-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "feagi-io: installing $package (the venv module is missing)"
        DEBIAN_FRONTEND=noninteractive
        export DEBIAN_FRONTEND
        # The package lists of a fresh container are empty: refresh them only if need be.
        apt-get install -y -qq "$package" >/dev/null 2>&1 || {
            apt-get update -qq && apt-get install -y -qq "$package" >/dev/null
        }
    fi
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "feagi-io: '$python' comes without venv and ensurepip; run: sudo apt install $package" >&2
        exit 1
    fi
fi

"$python" -m venv --clear "$venv"
