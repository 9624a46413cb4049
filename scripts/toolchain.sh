#!/bin/sh
# Whether this machine has what the build needs: `sh scripts/toolchain.sh [PYTHON]`. Prints all that is missing at once,
# each with how to get it, and exits with 1 if there is anything.
set -u
cd "$(dirname "$0")/.." || exit
python=${1:-python3}
missing=0

# Arguments: what is missing, then how to get it, one way a line.
report() {
    [ "$missing" -eq 0 ] && echo 'The build needs what this machine does not have:' >&2
    missing=$((missing + 1))
    echo "  - $1" >&2
    shift
    for way; do echo "      $way" >&2; done
}

# Whether version $1 is at least version $2; both are numbers with dots between them.
at_least() {
    awk -v have="$1" -v need="$2" 'BEGIN {
        count = split(need, needed, "."); split(have, had, ".")
        for (i = 1; i <= count; i++) if (had[i] + 0 != needed[i] + 0) exit had[i] + 0 < needed[i] + 0
    }'
}

check_python() {
    need=$(sed -n 's/^requires-python = ">=\([0-9.]*\)".*/\1/p' pyproject.toml)
    if ! command -v "$python" >/dev/null 2>&1; then
        report "Python $need or newer: there is no $python" \
            'Debian, Ubuntu: apt install python3 python3-venv    macOS: brew install python' \
            "an interpreter under another name: make PYTHON=python$need"
        return
    fi
    have=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
    if [ -z "$have" ]; then
        report "a Python that runs: $python does not" "$python -c 'import sys' shows why"
    elif ! at_least "$have" "$need"; then
        report "Python $need or newer: $python is $have" "another interpreter: make PYTHON=python$need"
    # Debian packages `venv` without `ensurepip`, which puts pip into an environment.
    elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        report "the module venv of $python" "Debian, Ubuntu: apt install python3-venv (or python$have-venv)"
    fi
}

check_rust() {
    need=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)
    install='https://rustup.rs, or: curl --proto "=https" -sSf https://sh.rustup.rs | sh'
    if ! command -v cargo >/dev/null 2>&1 || ! command -v rustc >/dev/null 2>&1; then
        report "Rust $need or newer: there is no cargo, or no rustc" "$install" \
            "installed already: put it on the PATH, as in  . \"\$HOME/.cargo/env\""
        return
    fi
    have=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
    if [ -z "$have" ]; then
        report "a Rust that runs: rustc does not" 'rustup default stable'
    elif ! at_least "$have" "$need"; then
        report "Rust $need or newer: rustc is $have" 'rustup update stable' \
            "a rustc of a distribution, too old: $install"
    fi
}

check_compiler() {
    compiler=${CC:-cc}
    # CC may carry arguments (`ccache gcc`).
    if printf '#include <stdio.h>\n' | $compiler -x c -fsyntax-only - >/dev/null 2>&1; then
        return
    fi
    if command -v "${compiler%% *}" >/dev/null 2>&1; then
        what="a C compiler that works: $compiler does not compile a program that includes stdio.h"
    else
        what="a C compiler (the bundled SQLite is compiled): there is no ${compiler%% *}"
    fi
    report "$what" 'Debian, Ubuntu: apt install build-essential    Fedora: dnf install gcc glibc-devel' \
        'Alpine: apk add build-base    macOS: xcode-select --install'
}

check_python
check_rust
check_compiler
[ "$missing" -eq 0 ]
