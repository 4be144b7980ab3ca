"""The `bridge` command. One module a group of commands; this one says what they have in common."""

from __future__ import annotations

from importlib import import_module

import click

from bridge.errors import BridgeError, ConfigInvalid
from bridge.log import printable

# In the order one meets them. Each is loaded when it is called: `serve` must not carry what only `list` needs.
_COMMANDS = {
    "dev": "dev:dev",
    "serve": "serve:serve",
    "check": "check:check",
    "health": "health:health",
    "metrics": "metrics:metrics",
    "sources": "sources:sources",
    "send": "send:send",
    "transform": "transform:transform",
    "list": "entries:list_",
    "show": "entries:show",
    "replay": "entries:replay",
    "journal": "journal:journal_",
}

# What a traceback is laid out with.
LAYOUT = "\n\t"


class _Commands(click.Group):
    """Errors we raise on purpose become a line each and an exit status; nothing else is caught."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigInvalid as invalid:
            for fault in invalid.faults:
                click.echo(f"bridge: {fault}", err=True)
            ctx.exit(2)
        except BridgeError as error:
            click.echo(f"bridge: {printable(str(error), keep=LAYOUT)}", err=True)
            ctx.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        module, _, name = _COMMANDS.get(cmd_name, "").partition(":")
        if not module:
            return None
        command: click.Command = getattr(import_module(f"bridge.cli.{module}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="webhook-event-bridge", prog_name="bridge")
def main() -> None:
    """Webhooks of Stripe, Slack and Intercom: verified, stored, answered, and forwarded to Inngest as events.

    \b
    bridge dev                            a whole bridge on this machine
    bridge send stripe customer.created   a signed webhook for it
    bridge list                           what became of it
    """
