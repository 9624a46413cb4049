#!/bin/sh
# Makes a virtual environment, in the place of one that was interrupted: `sh scripts/new-venv.sh PYTHON DIRECTORY`.
# Refuses a directory that is no virtual environment, because it would be removed.
set -eu
python=$1
directory=$2
if [ -e "$directory" ]; then
    if [ ! -e "$directory/pyvenv.cfg" ] && [ ! -e "$directory/.unfinished" ] && [ -n "$(ls -A "$directory")" ]; then
        echo "$directory is there, and is no virtual environment: remove it, or choose another with make VENV=…" >&2
        exit 1
    fi
    echo "$directory was left unfinished, or was moved here: it is made anew" >&2
    rm -rf "$directory"
fi
mkdir -p "$directory"
# The interpreter writes pyvenv.cfg only after the first directories.
: >"$directory/.unfinished"
"$python" -m venv "$directory"
rm "$directory/.unfinished"
