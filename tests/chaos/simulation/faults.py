"""What goes wrong in a run, and how often. Every choice is drawn from the run's own generator."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates are probabilities per message or per occasion.

    lost_request: it never reaches the broker. lost_reply: the broker has done what it was asked, nobody is told.
    slow: on its way for up to `delay_s`. crash: of a process at a message it sends, before the broker has it or after.
    kills: of any process, at any moment. restarts: of the broker, `machine` of them with all that runs beside it;
    `unsynced_s` of its consumers' state and (on one node) schedules are forgotten then. stale: a read that is
    answered by a replica that is behind by up to `lag_s`. late_timer, double_timer: of a schedule.
    """

    lost_request: float = 0.0
    lost_reply: float = 0.0
    lost_answer: float = 0.0
    slow: float = 0.0
    delay_s: float = 0.0
    crash: float = 0.0
    kills: int = 0
    machine: float = 0.0
    restarts: int = 0
    unsynced_s: float = 0.1
    stale: float = 0.0
    lag_s: float = 0.3
    late_timer: float = 0.0
    double_timer: float = 0.0

    @classmethod
    def draw(cls, rng: Random) -> "Faults":
        """Any mixture, from a quiet day to a very bad one."""

        def rate(highest: float) -> float:
            return rng.choice((0.0, 0.3, 1.0)) * highest

        return cls(
            lost_request=rate(0.05),
            lost_reply=rate(0.15),
            lost_answer=rate(0.3),
            slow=rate(0.1),
            delay_s=rng.choice((0.05, 0.5, 4.0)),
            crash=rate(0.06),
            kills=rng.choice((0, 0, 3)),
            machine=rate(0.6),
            restarts=rng.choice((0, 1, 2, 3)),
            stale=rate(0.3),
            late_timer=rate(0.5),
            double_timer=rate(0.5),
        )


NONE = Faults()
