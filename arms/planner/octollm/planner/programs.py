"""The programs that the executor's default policy runs, as far as plans made here may use them, and how each is called.

The lines are those of `octo policy explain default`; a test holds them to it.
"""

SYNOPSES = {
    "base64": "base64 [-di] [-w INTEGER] [PATH]",
    "basename": "basename [-az] [-s TEXT] TEXT…",
    "cat": "cat [-AbeEnstTuv] [PATH…]",
    "cmp": "cmp [-bls] [-n INTEGER] [-i INTEGER] PATH PATH [INTEGER] [INTEGER]",
    "comm": "comm [-123z] [--output-delimiter TEXT] PATH PATH",
    "cp": "cp [-adfHLlnPpRrsTuvx] [-t OUTPUT] [--preserve[=TEXT]] [PATH…] OUTPUT",
    "cut": "cut [-nsz] [-b LIST] [-c LIST] [-f LIST] [-d DELIMITER] [--output-delimiter TEXT] [PATH…]",
    "date": "date [-Ru] [-d DATE] [-r PATH] [-f PATH] [-I[WORD]] [--rfc-3339 WORD] [DATE_FORMAT]",
    "diff": (
        "diff [-aBbcdEeiNnqrstTuwyZ] [-U INTEGER] [-C INTEGER] [-W INTEGER] [-x PATTERN] [-I PATTERN] [-L "
        "TEXT] [--color[=WORD]] PATH PATH"
    ),
    "dirname": "dirname [-z] TEXT…",
    "du": "du [-0abcDhkLlmPSsx] [-d INTEGER] [--exclude PATTERN] [-t SIZE] [PATH…]",
    "echo": "echo [TEXT…]",
    "expr": "expr TEXT…",
    "false": "false [TEXT…]",
    "fold": "fold [-bs] [-w INTEGER] [PATH…]",
    "grep": (
        "grep [-abcEFGHhIiLlnoPqRrsTvwxz] [-e PATTERN] [-f PATH] [-m INTEGER] [-A INTEGER] [-B INTEGER] [-C "
        "INTEGER] [--include PATTERN] [--exclude PATTERN] [--exclude-dir PATTERN] [--color[=WORD]] PATTERN "
        "[PATH…]"
    ),
    "head": "head [-qvz] [-n COUNT] [-c COUNT] [PATH…]",
    "join": (
        "join [-iz] [-a INTEGER] [-v INTEGER] [-1 INTEGER] [-2 INTEGER] [-j INTEGER] [-e TEXT] [-o TEXT] [-t "
        "DELIMITER] PATH PATH"
    ),
    "ls": (
        "ls [-1AaBCcdFfGghikLlmNnopQqRrSstUuvXxZ] [--color[=WORD]] [--time-style TEXT] [--sort WORD] [--time "
        "WORD] [--format WORD] [-I PATTERN] [--block-size SIZE] [-w INTEGER] [PATH…]"
    ),
    "md5sum": "md5sum [-bctwz] [PATH…]",
    "mkdir": "mkdir [-pv] [-m MODE] OUTPUT…",
    "mv": "mv [-fnTuv] [-t OUTPUT] OUTPUT…",
    "nl": (
        "nl [-p] [-b PATTERN] [-f PATTERN] [-h PATTERN] [-d TEXT] [-i INTEGER] [-l INTEGER] [-n WORD] [-s "
        "TEXT] [-v INTEGER] [-w INTEGER] [PATH…]"
    ),
    "paste": "paste [-sz] [-d TEXT] [PATH…]",
    "printf": "printf TEXT…",
    "rev": "rev [PATH…]",
    "rm": "rm [-dfRrv] [OUTPUT…]",
    "seq": "seq [-w] [-f TEXT] [-s TEXT] NUMBER [NUMBER] [NUMBER]",
    "sha256sum": "sha256sum [-bctwz] [PATH…]",
    "sleep": "sleep DURATION…",
    "sort": "sort [-bcCdfghiMmnRrsuVz] [-k KEY] [-t DELIMITER] [-o OUTPUT] [-S SIZE] [--parallel INTEGER] [PATH…]",
    "stat": "stat [-Lt] [-c TEXT] [--printf TEXT] PATH…",
    "tac": "tac [-br] [-s TEXT] [PATH…]",
    "tail": "tail [-qvz] [-n COUNT] [-c COUNT] [PATH…]",
    "tee": "tee [-aip] [OUTPUT…]",
    "test": "test [TEXT…]",
    "touch": "touch [-achm] [-d DATE] [-r PATH] [-t DATE] OUTPUT…",
    "tr": "tr [-cCdst] TEXT [TEXT]",
    "true": "true [TEXT…]",
    "uniq": "uniq [-cdDiuz] [-f INTEGER] [-s INTEGER] [-w INTEGER] [PATH] [OUTPUT]",
    "wc": "wc [-clLmw] [PATH…]",
}
"""A program, and in one line what it takes: anything else is denied."""

PROGRAMS = tuple(SYNOPSES)
