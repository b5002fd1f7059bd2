"""Notifiers of somebody else's package: they append what they are told to a file."""

from pathlib import Path

from airflow.sdk import BaseNotifier


class FileNotifier(BaseNotifier):
    """Appends a line to a file."""

    template_fields = ("text",)

    def __init__(self, path, text):
        super().__init__()
        self.path, self.text = path, text

    def notify(self, context):
        with Path(self.path).open("a") as file:
            file.write(f"{self.text}\n")


class WaitingFileNotifier(FileNotifier):
    """The same for the triggerer."""

    async def async_notify(self, context):
        self.notify(context)
