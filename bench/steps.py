"""A bar for work of many steps, and what else is said of it."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Steps:
    """Shows how many are done, and which was the last; into a pipe, a line for each."""

    def __init__(self, title: str, count: int) -> None:
        columns = (
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[last]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(title, total=count, last="starting")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._progress.stop()

    def __call__(self, last: str) -> None:
        """One more is done: this."""
        self._progress.update(self._task, advance=1, last=last)
        if not self._progress.console.is_terminal:
            self._progress.console.print(last, soft_wrap=True)


def say(text: str) -> None:
    """To whoever watches, not into the result."""
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)
