"""The base of operators whose work may run in a spawned child process."""

from typing import Any, ClassVar

from corpusmill_operators.base import StageOperator


class ChildStepOperator(StageOperator):
    """Calls functions of JSON values, in a child process where ``in_child`` says so; a kill reaches the child too."""

    in_child: ClassVar[bool] = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._job: Any = None

    def call(self, function: str, arguments: dict[str, Any]) -> Any:
        """Returns what a function returns; its lines are the task's log.

        Args:
            function: ``module:name``; it takes the arguments and ``progress``.
            arguments: JSON values.
        """
        if self.in_child:
            from corpusmill.runner.child import ChildJob

            self._job = ChildJob(function, arguments)
            return self._job.run(self.log.info)
        from importlib import import_module

        module, _, name = function.partition(":")
        return getattr(import_module(module), name)(**arguments, progress=self.log.info)

    def on_kill(self) -> None:
        """Kills the child process and everything it started."""
        if self._job is not None:
            self._job.kill()
