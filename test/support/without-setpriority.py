"""Runs a program that may not call setpriority(2), as in a sandbox: python3 without-setpriority.py PROGRAM ARGUMENT..."""

import ctypes
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, EPERM = 0x7FFF0000, 0x00050000 | 1
SETPRIORITY = {"x86_64": 141, "aarch64": 140}[platform.machine()]

# BPF (linux/filter.h): load the number of the call; if it is setpriority, answer EPERM, otherwise allow it.
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
instructions = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, SETPRIORITY), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(instructions), ctypes.addressof(code))
for result in (
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
):
    if result != 0:
        raise OSError(ctypes.get_errno(), "prctl")
os.execvp(sys.argv[1], sys.argv[1:])
