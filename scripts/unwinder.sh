#!/bin/sh
# Makes a stand-in for libgcc_s.so.1 that a wheel is linked against: `sh scripts/unwinder.sh PYTHON TARGET DIRECTORY`.
#
# Zig links an unwinder of its own into what it makes. Before 3.14, CPython ends a daemon thread by pthread_exit, with
# which glibc has libgcc_s unwind the thread; it calls into Rust's frames, and they would hand libgcc_s's state to the
# other unwinder: a segmentation fault. The stand-in has the names and versions of the functions, and no code.
set -eu
python=$1
target=$2
directory=$3
mkdir -p "$directory"
cd "$directory"
cat >unwinder.map <<'END'
GCC_3.0 {
    global: _Unwind_DeleteException; _Unwind_GetDataRelBase; _Unwind_GetIP; _Unwind_GetLanguageSpecificData;
        _Unwind_GetRegionStart; _Unwind_GetTextRelBase; _Unwind_RaiseException; _Unwind_Resume; _Unwind_SetGR;
        _Unwind_SetIP;
    local: *;
};
GCC_3.3 { global: _Unwind_Backtrace; _Unwind_FindEnclosingFunction; _Unwind_GetCFA; } GCC_3.0;
GCC_4.2.0 { global: _Unwind_GetIPInfo; } GCC_3.3;
END
grep -o '_Unwind_[A-Za-z]*' unwinder.map | sed 's/.*/void &(void) {}/' >unwinder.c
"$python" -m ziglang cc -target "$(echo "$target" | sed 's/-unknown//')" -shared -nostdlib -fPIC -Wno-builtin-requires-header \
    -Wl,-soname,libgcc_s.so.1 -Wl,--version-script=unwinder.map -o libgcc_s.so.1 unwinder.c
