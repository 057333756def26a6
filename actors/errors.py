"""Errors that set a run back or end it."""

ENDED_WITH_WEIGHTS = "it was ended because the process that holds its weights had died"


class ActorDied(Exception):
    """An actor is gone or does not answer, and the request is lost. The text names the actor and the cause."""

    @property
    def cause(self) -> str:
        """The text without the actor's name."""
        return str(self).partition(" died: ")[2] or str(self)

    @property
    def caused(self) -> bool:
        """Whether the death of the process that holds the weights, which is counted for itself, has caused it."""
        return ENDED_WITH_WEIGHTS in str(self)


class LearnerDied(ActorDied):
    """The learner's process is gone, and with it the weights since the last checkpoint."""


class Halted(Exception):
    """The run must not go on. The text says why."""


class Interrupted(Exception):
    """The run was told to stop, and a step could not finish within the grace period."""


def root_cause(error: BaseException) -> BaseException:
    """Return the first single error in a group of errors, as asyncio's task groups raise them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
