"""The effect class of an action, derived from what it does: a model's word for it is not needed."""

from msgspec import UNSET

from octollm.events.carrier import (
    Action,
    CheckAction,
    CommandAction,
    Effect,
    FileAction,
    HttpAction,
    Method,
    Op,
    ScriptAction,
)
from octollm.planner.programs import PROGRAMS

# Running these again does something else: what was moved or removed is gone.
_ONCE = frozenset({"mv", "rm"})
# Running these again leaves the workspace as it was after the first time.
_REPEATABLE = frozenset({"cp", "mkdir", "tee", "touch"})
_PURE = frozenset(PROGRAMS) - _ONCE - _REPEATABLE

# Safe and idempotent methods (RFC 9110, 9.2). What an answer leaves in a file is replaced as a whole.
_OF_METHOD = {
    Method.GET: Effect.pure,
    Method.HEAD: Effect.pure,
    Method.PUT: Effect.idempotent,
    Method.DELETE: Effect.idempotent,
}


def effect_of(action: Action) -> Effect:
    """Pure, idempotent, or side-effecting; whatever isn't known to be harmless is side-effecting."""
    match action:
        case CheckAction():
            return Effect.pure
        case FileAction(op=op):
            return Effect.idempotent if op in (Op.write, Op.mkdir) else Effect.side_effecting
        case HttpAction(method=method, save=save):
            effect = _OF_METHOD.get(method, Effect.side_effecting)
            return Effect.idempotent if effect is Effect.pure and save is not UNSET else effect
        case CommandAction():
            return _command_effect(action)
        case ScriptAction():
            return Effect.side_effecting


def _command_effect(action: CommandAction) -> Effect:
    names = {stage[0] for stage in action.pipeline}
    arguments = {argument for stage in action.pipeline for argument in stage[1:]}
    if not names <= _PURE | _REPEATABLE or ("tee" in names and arguments & {"-a", "--append"}):
        return Effect.side_effecting
    if action.redirect:
        # A pipeline that reads the file it replaces finds another one the next time.
        again = action.redirect.append is True or action.redirect.path in arguments
        return Effect.side_effecting if again else Effect.idempotent
    return Effect.pure if names <= _PURE else Effect.idempotent
