"""A plan as a model writes it: one lean shape for every provider.

The schema keeps to what strict modes accept: every field required, null instead of absent, no additional properties, no
bounds. Bounds, identity and dependencies are for validation, whose findings go back to the model.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from octollm.events.carrier import (
    Action,
    CheckAction,
    CommandAction,
    ContainsCriterion,
    EqualsCriterion,
    ExitCodeCriterion,
    FileAction,
    FileExistsCriterion,
    HttpAction,
    JsonPathCriterion,
    MachineCriterion,
    Op,
    Redirect,
    RegexCriterion,
    ScriptAction,
    Step,
)
from octollm.planner.drafts import DEFAULT_LIMITS, EXECUTOR
from octollm.planner.effects import effect_of
from octollm.planner.validation import InvalidPlan, Violation

T = TypeVar("T")


class NotJson(ValueError):
    """The model's answer is no JSON. The message holds none of it."""


class _Contains(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="contains"):
    text: str
    path: str | None = None
    step: str | None = None


class _Equals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="equals"):
    text: str
    path: str | None = None
    step: str | None = None


class _Regex(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="regex"):
    pattern: str
    path: str | None = None
    step: str | None = None


class _FileExists(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="file_exists"):
    path: str


class _ExitCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="exit_code"):
    code: int


_Criterion = _Contains | _Equals | _Regex | _FileExists | _ExitCode


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="command"):
    pipeline: list[list[str]]
    stdin: str | None = None
    output_file: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="file"):
    op: Op
    path: str
    text: str | None = None


class _Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="check"):
    criteria: list[_Criterion]


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    title: str
    depends_on: list[str]
    action: _Command | _File | _Check
    acceptance: list[_Criterion]


class _Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    steps: list[_Step]
    confidence: int


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _kind(name: str) -> dict[str, Any]:
    return {"type": "string", "enum": [name]}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TEXT: dict[str, Any] = {"type": "string"}
_MAYBE: dict[str, Any] = {"type": ["string", "null"]}
_CRITERION = {
    "anyOf": [
        _object(kind=_kind("contains"), text=_TEXT, path=_MAYBE, step=_MAYBE),
        _object(kind=_kind("equals"), text=_TEXT, path=_MAYBE, step=_MAYBE),
        _object(kind=_kind("regex"), pattern=_TEXT, path=_MAYBE, step=_MAYBE),
        _object(kind=_kind("file_exists"), path=_TEXT),
        _object(kind=_kind("exit_code"), code={"type": "integer"}),
    ]
}
_ACTION = {
    "anyOf": [
        _object(kind=_kind("command"), pipeline=_list(_list(_TEXT)), stdin=_MAYBE, output_file=_MAYBE),
        _object(kind=_kind("file"), op={"type": "string", "enum": [op.value for op in Op]}, path=_TEXT, text=_MAYBE),
        _object(kind=_kind("check"), criteria=_list(_CRITERION)),
    ]
}

SCHEMA: dict[str, Any] = _object(
    steps=_list(
        _object(id=_TEXT, title=_TEXT, depends_on=_list(_TEXT), action=_ACTION, acceptance=_list(_CRITERION)),
    ),
    confidence={"type": "integer"},
)
"""JSON Schema of a model's answer."""


def decode(text: str) -> tuple[list[Step], int]:
    """Steps and confidence in percent. Raises NotJson, or InvalidPlan for JSON of another shape."""
    try:
        data = msgspec.json.decode(_unfenced(text))
    except msgspec.DecodeError as error:
        raise NotJson("the answer is not one JSON object") from error
    try:
        plan = msgspec.convert(data, _Plan)
    except msgspec.ValidationError as error:
        raise InvalidPlan([Violation("the plan", "shape", str(error))]) from error
    if not 0 <= plan.confidence <= 100:
        raise InvalidPlan([Violation("the plan", "shape", "confidence goes from 0 to 100")])
    return [_step(step) for step in plan.steps], plan.confidence


def encode(steps: Sequence[Step], confidence: int) -> str:
    """Steps as a model should write them: for the prompt's examples."""
    plan = _Plan(
        steps=[
            _Step(
                id=step.id,
                title=step.title,
                depends_on=step.depends_on,
                action=_written_action(step.action),
                acceptance=[_written_criterion(criterion) for criterion in step.acceptance],
            )
            for step in steps
        ],
        confidence=confidence,
    )
    return msgspec.json.encode(plan).decode()


def _unfenced(text: str) -> str:
    """Without the code fence that some models put around JSON."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```"):
        return stripped.removesuffix("```").partition("\n")[2]
    return stripped


def _step(step: _Step) -> Step:
    action = _action(step.action)
    return Step(
        id=step.id,
        title=step.title,
        arm=EXECUTOR,
        action=action,
        depends_on=list(dict.fromkeys(step.depends_on)),
        acceptance=[_criterion(criterion) for criterion in step.acceptance],
        effect=effect_of(action),
        limits=DEFAULT_LIMITS,
    )


def _action(action: _Command | _File | _Check) -> Action:
    match action:
        case _Command():
            redirect = UNSET if action.output_file is None else Redirect(path=action.output_file)
            return CommandAction(pipeline=action.pipeline, stdin=_set(action.stdin), redirect=redirect)
        case _File():
            return FileAction(op=action.op, path=action.path, text=_set(action.text))
        case _Check():
            return CheckAction(criteria=[_criterion(criterion) for criterion in action.criteria])


def _criterion(criterion: _Criterion) -> MachineCriterion:
    match criterion:
        case _Contains():
            return ContainsCriterion(text=criterion.text, path=_set(criterion.path), step=_set(criterion.step))
        case _Equals():
            return EqualsCriterion(text=criterion.text, path=_set(criterion.path), step=_set(criterion.step))
        case _Regex():
            return RegexCriterion(pattern=criterion.pattern, path=_set(criterion.path), step=_set(criterion.step))
        case _FileExists():
            return FileExistsCriterion(path=criterion.path)
        case _ExitCode():
            return ExitCodeCriterion(code=criterion.code)


def _written_action(action: Action) -> _Command | _File | _Check:
    match action:
        case CommandAction():
            into = None if action.redirect is UNSET else action.redirect.path
            return _Command(pipeline=action.pipeline, stdin=_null(action.stdin), output_file=into)
        case FileAction():
            return _File(op=action.op, path=action.path, text=_null(action.text))
        case HttpAction():
            raise ValueError("models are not offered http")
        case ScriptAction():
            raise ValueError("models are not offered scripts")
        case CheckAction():
            return _Check(criteria=[_written_criterion(criterion) for criterion in action.criteria])


def _written_criterion(criterion: MachineCriterion) -> _Criterion:
    match criterion:
        case ContainsCriterion():
            return _Contains(criterion.text, _null(criterion.path), _null(criterion.step))
        case EqualsCriterion():
            return _Equals(criterion.text, _null(criterion.path), _null(criterion.step))
        case RegexCriterion():
            return _Regex(criterion.pattern, _null(criterion.path), _null(criterion.step))
        case FileExistsCriterion():
            return _FileExists(criterion.path)
        case ExitCodeCriterion():
            return _ExitCode(criterion.code)
        case JsonPathCriterion():
            raise ValueError("models are not offered json_path")


def _set(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


def _null(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value
