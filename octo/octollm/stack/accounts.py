"""Who may do what on the broker: events/accounts.json as nats-server configuration, one account per service.

The account that owns the streams exports each subject as a service to just the accounts whose rows name it. Within one
account permissions would not be enough: the broker checks the subject of a publish, but not where its reply goes, so
the answer to a direct get could be aimed at a subject of the log. Across accounts a reply returns to the account that
asked, and nowhere else (docs/decisions/0008-one-account-per-service.md).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from octollm.stack.keys import nkey

BOOTSTRAP = "bootstrap"
CLIENT = "client"
OPERATOR = "operator"

FORGET = "2m"
"""How long the broker remembers where the answers to a request go: longer than any pull request lives.

Without it requests with many answers are remembered as long as the inbox lives, 0.8 KB each (measured).
"""


class Durable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A consumer of streams.json."""

    stream: str
    durable_name: str


class Rights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of accounts.json.

    ``writes``: subjects; ``consumes``: durables to pull from and to answer; ``reads``: streams, by direct get;
    ``inspects``: calls of the JetStream API that only tell; ``hears``: what EVENTS republishes under ``log.``.
    """

    writes: list[str]
    consumes: list[Durable] = []
    reads: list[str] = []
    inspects: list[str] = []
    hears: list[str] = []


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """accounts.json: the account with the streams, the accounts around it, and two users with rows of their own.

    ``bootstrap`` is the one user of the owning account; ``client`` is whoever connects without a key.
    """

    owner: str
    accounts: dict[str, Rights]
    bootstrap: Rights
    client: Rights


class Export(msgspec.Struct, frozen=True):
    """A subject of the owning account. ``answers``: one, many, or a stream of messages that nobody asks for."""

    subject: str
    answers: Literal["one", "many", "unasked"]
    local: str
    """What the importing account calls it."""


@cache
def table() -> Table:
    """The content of accounts.json."""
    return msgspec.json.decode((files("octollm.events") / "accounts.json").read_bytes(), type=Table)


def key_file(keys_dir: Path, account: str) -> Path:
    """Where the account's private key is kept."""
    return keys_dir / f"nats-{account}.nk"


def configuration(keys_dir: Path) -> str:
    """The sections ``accounts`` and ``no_auth_user`` of nats-server's configuration; makes the keys that are missing.

    It holds public keys only. Raises StackError for a key file that can't be used.
    """
    rows = table()
    exports = {name: _exports(rights) for name, rights in _importers(rows).items()}
    accounts = [_owner(rows, exports, nkey(key_file(keys_dir, BOOTSTRAP)))]
    for name, rights in rows.accounts.items():
        inboxes = [">"] if name == OPERATOR else [f"_INBOX_{name}.>", *(f"log.{subject}" for subject in rights.hears)]
        user = {"nkey": nkey(key_file(keys_dir, name)), "permissions": _permissions(exports[name], allow=inboxes)}
        accounts.append(_account(name.upper(), user, exports[name], rows.owner))
    # Everybody on this machine is this user, so there is no key to keep; submissions are for the broker alone to read.
    anybody = {"user": CLIENT, "password": "", "permissions": _permissions(exports[CLIENT], deny=rows.client.writes)}
    accounts.append(_account(CLIENT.upper(), anybody, exports[CLIENT], rows.owner))
    return f"no_auth_user: {CLIENT}\naccounts {{\n" + "\n".join(accounts) + "\n}\n"


def _importers(rows: Table) -> dict[str, Rights]:
    return {**rows.accounts, CLIENT: rows.client}


def _exports(rights: Rights) -> list[Export]:
    def direct_get(stream: str) -> Iterable[Export]:
        yield _service(f"$JS.API.DIRECT.GET.{stream}", "many")
        # Subject in the call: one answer. Answers of which there may be many are remembered for longer.
        yield _service(f"$JS.API.DIRECT.GET.{stream}.>", "one")

    found = [_service(subject, "one") for subject in rights.writes]
    for durable in rights.consumes:
        found.append(_service(f"$JS.API.CONSUMER.MSG.NEXT.{durable.stream}.{durable.durable_name}", "many"))
        found.append(_service(f"$JS.ACK.{durable.stream}.{durable.durable_name}.>", "one"))
    for stream in rights.reads:
        found.extend(direct_get(stream))
    # Every account has a JetStream API of its own, and it would answer first ("not enabled"): calls go round it.
    found.extend(Export(f"$JS.API.{call}", "one", f"{table().owner}.{call}") for call in rights.inspects)
    return found + [Export(f"log.{subject}", "unasked", f"log.{subject}") for subject in rights.hears]


def _service(subject: str, answers: Literal["one", "many"]) -> Export:
    return Export(subject, answers, subject)


def _owner(rows: Table, exports: Mapping[str, Sequence[Export]], key: str) -> str:
    importers: dict[tuple[str, str], list[str]] = {}
    for name, exported in exports.items():
        for export in exported:
            importers.setdefault((export.subject, export.answers), []).append(name.upper())
    lines = []
    for (subject, answers), names in importers.items():
        kind = "stream" if answers == "unasked" else "service"
        entry: dict[str, object] = {kind: subject, "accounts": names}
        if answers == "many":
            entry |= {"response_type": "stream", "response_threshold": FORGET}
        lines.append(_line(entry))
    permissions = {"publish": {"allow": rows.bootstrap.writes}, "subscribe": {"allow": [f"_INBOX_{BOOTSTRAP}.>"]}}
    users = ["  users: [", _line({"nkey": key, "permissions": permissions}), "  ]"]
    return _block(f"{rows.owner} {{", ["  jetstream: enabled", *users, "  exports: [", *lines, "  ]"])


def _account(name: str, user: Mapping[str, object], exports: Sequence[Export], owner: str) -> str:
    lines = []
    for export in exports:
        source = {"account": owner, "subject": export.subject}
        if export.answers != "unasked":
            entry: dict[str, object] = {"service": source}
            if export.local != export.subject:
                entry["to"] = _numbered(export.local)
            lines.append(_line(entry))
        elif name == CLIENT.upper():
            lines.append(_line({"stream": source, "to": _numbered(export.subject.removeprefix("log."))}))
        else:
            lines.append(_line({"stream": source}))
    mappings = {e.subject: _numbered(e.local) for e in exports if e.local != e.subject}
    head = [f"  mappings: {json.dumps(mappings)}"] if mappings else []
    return _block(f"{name} {{", [*head, "  users: [", _line(user), "  ]", "  imports: [", *lines, "  ]"])


def _permissions(
    exports: Sequence[Export], *, allow: Sequence[str] = (), deny: Sequence[str] = ()
) -> dict[str, dict[str, Sequence[str]]]:
    # The broker checks a publish after it has mapped its subject.
    publish = [export.local for export in exports if export.answers != "unasked"]
    subscribe = {"allow": allow} if allow else {"deny": deny}
    return {"publish": {"allow": publish}, "subscribe": subscribe}


def _numbered(subject: str) -> str:
    """Wildcards as the broker's mappings refer to them: the first is $1, and so on."""
    tokens, count = [], 0
    for token in subject.split("."):
        count += token == "*"  # noqa: S105
        tokens.append(f"${count}" if token == "*" else token)  # noqa: S105
    return ".".join(tokens)


def _line(entry: Mapping[str, object]) -> str:
    return "    " + json.dumps(entry)


def _block(head: str, lines: Sequence[str]) -> str:
    return "\n".join([f"  {head}", *(f"  {line}" for line in lines), "  }"])
