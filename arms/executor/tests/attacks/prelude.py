import ctypes, errno, os, sys

_libc = ctypes.CDLL(None, use_errno=True)
page = ctypes.create_string_buffer(65536)


def call(number, *arguments):
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), errno.errorcode.get(ctypes.get_errno(), "?"))
    return result


def attempt(what, action):
    try:
        print("ESCAPED", what, action(), flush=True)
    except (OSError, PermissionError, ValueError, EOFError) as error:
        print("held", what, error, flush=True)


def read(path):
    with open(path, "rb") as file:
        return file.read(4096)


def write(path, content=b"x"):
    with open(path, "wb", buffering=0) as file:
        return file.write(content)
