"""The programs that the executor's default policy runs, as far as plans made here may use them."""

# fmt: off
PROGRAMS = (
    "base64", "basename", "cat", "cmp", "comm", "cp", "cut", "date", "diff", "dirname", "echo", "expr", "false", "grep",
    "head", "ls", "mkdir", "mv", "nl", "paste", "printf", "rev", "rm", "seq", "sha256sum", "sleep", "sort", "stat",
    "tac", "tail", "tee", "test", "touch", "tr", "true", "uniq", "wc",
)
# fmt: on
