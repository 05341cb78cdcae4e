"""Runs a plan on this machine and judges it: a second reading of the contract that shares no code with the planner.

For plans of trusted tests only: there is no sandbox.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Broken(AssertionError):
    """The plan can't be run as written, or a criterion does not hold."""


@dataclass
class Run:
    """What a plan left behind: stdout by step, and the answer: of the last command that wrote any, in plan order."""

    workspace: Path
    outputs: dict[str, str] = field(default_factory=dict)
    answer: str = ""


def run(steps: list[dict[str, Any]], workspace: Path) -> Run:
    """Runs steps (JSON form) as soon as their dependencies allow; raises Broken."""
    done: set[str] = set()
    result = Run(workspace)
    names = [step["id"] for step in steps]
    if len(set(names)) != len(names):
        raise Broken("ids are not unique")
    waiting = list(steps)
    while waiting:
        ready = [step for step in waiting if set(step["depends_on"]) <= done]
        if not ready:
            raise Broken(f"these wait for ever: {[step['id'] for step in waiting]}")
        # The later ones first: nothing may rely on the order in which the plan happens to be written.
        for step in reversed(ready):
            _step(step, result)
            done.add(step["id"])
            waiting.remove(step)
    for step in steps:
        if result.outputs.get(step["id"]):
            result.answer = result.outputs[step["id"]]
    return result


def _step(step: dict[str, Any], result: Run) -> None:
    action, code = step["action"], 0
    match action["kind"]:
        case "command":
            code = _command(step["id"], action, result)
        case "file":
            path = result.workspace / action["path"]
            match action["op"]:
                case "write":
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(action.get("text", ""))
                case "mkdir":
                    path.mkdir(parents=True, exist_ok=True)
                case op:
                    raise Broken(f"recipes plan no {op}")
        case "check":
            for criterion in action["criteria"]:
                if not ("path" in criterion or "step" in criterion):
                    raise Broken(f"{step['id']} checks nothing: {criterion}")
                _criterion(step["id"], criterion, code, result)
    expects_code = any(criterion["kind"] == "exit_code" for criterion in step["acceptance"])
    if code != 0 and not expects_code:
        raise Broken(f"{step['id']} ended with {code}")
    for criterion in step["acceptance"]:
        _criterion(step["id"], criterion, code, result)


def _command(name: str, action: dict[str, Any], result: Run) -> int:
    data = action.get("stdin", "").encode()
    code = 0
    for argv in action["pipeline"]:
        done = subprocess.run(argv, cwd=result.workspace, input=data, capture_output=True, timeout=20, check=False)
        data, code = done.stdout, done.returncode
    if redirect := action.get("redirect"):
        (result.workspace / redirect["path"]).write_bytes(data)
        data = b""
    result.outputs[name] = data.decode()
    return code


def _criterion(own: str, criterion: dict[str, Any], code: int, result: Run) -> None:
    kind = criterion["kind"]
    if kind == "exit_code":
        holds = code == criterion["code"]
    elif kind == "file_exists":
        holds = (result.workspace / criterion["path"]).exists()
    else:
        if "path" in criterion:
            target = (result.workspace / criterion["path"]).read_text()
        else:
            target = result.outputs[criterion.get("step", own)]
        match kind:
            case "equals":
                holds = target.rstrip("\n") == criterion["text"].rstrip("\n")
            case "contains":
                holds = criterion["text"] in target
            case "regex":
                holds = re.search(criterion["pattern"], target) is not None
            case _:
                raise Broken(f"no such criterion: {kind}")
    if not holds:
        raise Broken(f"{own}: {criterion} does not hold; outputs {result.outputs}")
