"""OctoLLM's own services: what is run, on which port, with which part of the environment."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from octollm.stack import probe, procfs
from octollm.stack.errors import Missing, StackError
from octollm.stack.keys import capability, receipt, secret
from octollm.stack.ports import HOST
from octollm.stack.program import Kind, Program

HARMLESS = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TERM",
        "NO_COLOR",
        "OCTO_CONFIG",
        "OCTO_LOG",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "RUST_LOG",
        "RUST_BACKTRACE",
        "LLVM_PROFILE_FILE",
        "COVERAGE_PROCESS_START",
        "COVERAGE_PROCESS_CONFIG",
    ]
)
HARMLESS_PREFIXES = ("LC_", "OTEL_")
"""What every program of the stack inherits from the caller. Keys of LLM providers are not among it."""

LLM = ("OPENAI_", "ANTHROPIC_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


MONITOR = "nats_monitor"
"""The name, among the URLs, of the HTTP monitoring of a broker that this stack runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What a service may need of the running stack; ``urls`` has the servers (nats, postgres, redis) and services."""

    data_dir: Path
    keys_dir: Path
    urls: Mapping[str, str]

    def url(self, name: str) -> str:
        """The URL of a server, or the base URL of a service; raises StackError when the stack has none of that name."""
        try:
            return self.urls[name]
        except KeyError:
            raise StackError(f"this stack has no {name}; it has {', '.join(self.urls) or 'nothing'}") from None


def _nothing(_: Wiring) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One row of the table.

    ``argv[0]`` is ``python`` (the interpreter that runs the stack), a path, or a program's name that is looked up.
    Besides its own section ``OCTO_<NAME>__…`` it sees the sections in ``sections`` and the variables that begin with
    one of ``passes``; ``settings`` adds what the stack decides. ``/ready`` on ``port`` answers 200 when it is ready.
    """

    name: str
    port: int
    argv: tuple[str, ...]
    sections: tuple[str, ...] = ("NATS",)
    passes: tuple[str, ...] = ()
    settings: Callable[[Wiring], dict[str, str]] = _nothing
    drain_seconds: float = 10.0


def _projections(wiring: Wiring) -> dict[str, str]:
    return {"OCTO_POSTGRES__URL": wiring.url("postgres"), "OCTO_PROJECTIONS__REFLEX_URL": wiring.url("reflex")}


def _reflex(wiring: Wiring) -> dict[str, str]:
    key = wiring.keys_dir / "reflex-digest.key"
    secret(key)
    return {"OCTO_REDIS__URL": wiring.url("redis"), "OCTO_REFLEX__DIGEST_KEY_FILE": str(key)}


def _planner(wiring: Wiring) -> dict[str, str]:
    return {"OCTO_PLANNER__REFLEX_URL": wiring.url("reflex")}


def _executor(wiring: Wiring) -> dict[str, str]:
    _, public_key = capability(wiring.keys_dir)
    receipt_key, _ = receipt(wiring.keys_dir)
    operator_key = wiring.keys_dir / "operator.key"
    secret(operator_key)
    return {
        "OCTO_EXECUTOR__CAPABILITY_PUBLIC_KEY_FILE": str(public_key),
        "OCTO_EXECUTOR__RECEIPT_KEY_FILE": str(receipt_key),
        "OCTO_EXECUTOR__OPERATOR_KEY_FILE": str(operator_key),
    }


def _orchestrator(wiring: Wiring) -> dict[str, str]:
    key, _ = capability(wiring.keys_dir)
    return {"OCTO_ORCHESTRATOR__CAPABILITY_KEY_FILE": str(key)}


SERVICES: tuple[Service, ...] = (
    Service(
        name="projections",
        port=8000,
        argv=("python", "-P", "-m", "octollm.projections"),
        sections=("NATS", "POSTGRES"),
        settings=_projections,
    ),
    Service(name="reflex", port=8001, argv=("octollm-reflex",), sections=("NATS", "REDIS"), settings=_reflex),
    Service(name="planner", port=8002, argv=("python", "-P", "-m", "octollm.planner"), passes=LLM, settings=_planner),
    Service(name="executor", port=8003, argv=("octollm-executor",), settings=_executor),
    Service(
        name="orchestrator", port=8004, argv=("python", "-P", "-m", "octollm.orchestrator"), settings=_orchestrator
    ),
)


def find(argv: tuple[str, ...], bin_dir: Path | None) -> tuple[str, ...]:
    """``argv`` with its program as an absolute path.

    A name is looked for in ``bin_dir`` (OCTO_BIN_DIR), in this repository's ``target/release`` and ``target/debug``,
    then on PATH. Raises Missing with the places that were searched.
    """
    name, rest = argv[0], argv[1:]
    if name == "python":
        return sys.executable, *rest
    if os.sep in name:
        return str(Path(name).absolute()), *rest
    places = [bin_dir] if bin_dir else []
    repository = Path(__file__).resolve().parents[3]
    if (repository / "Cargo.toml").exists():
        places += [repository / "target" / "release", repository / "target" / "debug"]
    for place in places:
        if found := shutil.which(name, path=str(place)):
            return str(Path(found).absolute()), *rest
    if found := shutil.which(name):
        return str(Path(found).absolute()), *rest
    searched = ", ".join([*map(str, places), "PATH"])
    raise Missing(
        f"{name} isn't built (looked in {searched}); build it with `cargo build --release`, or set OCTO_BIN_DIR"
    )


def port(service: Service, caller: Mapping[str, str]) -> int:
    """The port that the caller's ``OCTO_<NAME>__PORT`` names, else the table's; raises StackError for nonsense."""
    name = f"OCTO_{service.name.upper()}__PORT"
    text = caller.get(name, str(service.port))
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise StackError(f"{name} is {text!r}; it must be a port's number from 1 to 65535")
    return int(text)


def inherited(caller: Mapping[str, str], passes: tuple[str, ...] = ()) -> dict[str, str]:
    """The caller's variables that may be passed on: the harmless ones, and those that begin with one of ``passes``."""
    prefixes = HARMLESS_PREFIXES + passes
    return {name: value for name, value in caller.items() if name in HARMLESS or name.startswith(prefixes)}


def octo_settings(service: Service, caller: Mapping[str, str]) -> dict[str, str]:
    """The caller's ``OCTO_<SECTION>__<KEY>`` that concern ``service``: the executor needs no key of the planner's."""
    foreign = {other.name.upper() for other in SERVICES} | {"NATS", "POSTGRES", "REDIS"}
    foreign -= {service.name.upper(), *service.sections}
    found = {}
    for name, value in caller.items():
        prefix, _, rest = name.partition("_")
        section, delimiter, _ = rest.partition("__")
        if prefix == "OCTO" and delimiter and section not in foreign:
            found[name] = value
    return found


def program(
    service: Service,
    *,
    port: int,
    wiring: Wiring,
    nkey_file: Path | None,
    caller: Mapping[str, str],
    argv: tuple[str, ...],
    stack_id: str,
) -> Program:
    """How to run ``service`` on ``port``; ``argv`` is its command as ``find`` returned it.

    ``nkey_file`` holds its key for NATS, where that wants one.
    """
    address = f"http://{HOST}:{port}"
    environment = {
        **inherited(caller, service.passes),
        **octo_settings(service, caller),
        **({"OCTO_NATS__URL": wiring.url("nats")} if "nats" in wiring.urls else {}),
        **({"OCTO_NATS__MONITOR_URL": wiring.url(MONITOR)} if MONITOR in wiring.urls else {}),
        **({"OCTO_NATS__NKEY_FILE": str(nkey_file)} if nkey_file else {}),
        f"OCTO_{service.name.upper()}__PORT": str(port),
        **service.settings(wiring),
        "PYTHONUNBUFFERED": "1",
        procfs.MARK: stack_id,
    }

    async def ready() -> None:
        await probe.http_ready(f"{address}/ready")

    return Program(
        name=service.name,
        kind=Kind.SERVICE,
        argv=argv,
        environment=environment,
        port=port,
        address=address,
        ready=ready,
        drain_seconds=service.drain_seconds,
    )
