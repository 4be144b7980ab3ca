"""Slack's events, interactions and commands under names of one kind: what, a dot, what happened to it.

Slack names some events for the past (`channel_created`), some for the present (`team_join`), some for neither
(`file_public`). NAMES translates each documented type (https://docs.slack.dev/reference/events), and is closed: a type
that is not in it keeps its name, so that no name changes when Slack adds a type.

A `message` is told apart by its subtype (https://docs.slack.dev/reference/events/message): MESSAGES has those that have
a name of their own, any other becomes `message.{subtype}`, such as `message.channel_join`.
A command's text stays in the data: a user typed it, so it can't be part of a name.
"""

from __future__ import annotations

import re

from bridge import Delivery, Event

VERSION = "2026-11-21.1"

NAMES = {
    # the Events API
    "agent_session_stopped": "agent_session.stopped",
    "agent_session_title_changed": "agent_session_title.changed",
    "app_context_changed": "app_context.changed",
    "app_deleted": "app.deleted",
    "app_home_opened": "app_home.opened",
    "app_installed": "app.installed",
    "app_mention": "app.mentioned",
    "app_rate_limited": "app.rate_limited",
    "app_requested": "app.requested",
    "app_uninstalled": "app.uninstalled",
    "app_uninstalled_team": "app.uninstalled_team",
    "assistant_thread_context_changed": "assistant_thread_context.changed",
    "assistant_thread_started": "assistant_thread.started",
    "call_rejected": "call.rejected",
    "channel_archive": "channel.archived",
    "channel_created": "channel.created",
    "channel_deleted": "channel.deleted",
    "channel_history_changed": "channel_history.changed",
    "channel_id_changed": "channel_id.changed",
    "channel_left": "channel.left",
    "channel_rename": "channel.renamed",
    "channel_shared": "channel.shared",
    "channel_unarchive": "channel.unarchived",
    "channel_unshared": "channel.unshared",
    "dnd_updated": "dnd.updated",
    "dnd_updated_user": "dnd.updated_user",
    "email_domain_changed": "email_domain.changed",
    "emoji_changed": "emoji.changed",
    "entity_details_requested": "entity_details.requested",
    "file_change": "file.changed",
    "file_comment_deleted": "file_comment.deleted",
    "file_created": "file.created",
    "file_deleted": "file.deleted",
    "file_public": "file.published",
    "file_shared": "file.shared",
    "file_unshared": "file.unshared",
    "function_executed": "function.executed",
    "grid_migration_finished": "grid_migration.finished",
    "grid_migration_started": "grid_migration.started",
    "group_archive": "group.archived",
    "group_close": "group.closed",
    "group_deleted": "group.deleted",
    "group_history_changed": "group_history.changed",
    "group_left": "group.left",
    "group_open": "group.opened",
    "group_rename": "group.renamed",
    "group_unarchive": "group.unarchived",
    "im_close": "im.closed",
    "im_created": "im.created",
    "im_history_changed": "im_history.changed",
    "im_open": "im.opened",
    "invite_requested": "invite.requested",
    "link_shared": "link.shared",
    "member_joined_channel": "member.joined",
    "member_left_channel": "member.left",
    "message_metadata_deleted": "message_metadata.deleted",
    "message_metadata_posted": "message_metadata.posted",
    "message_metadata_updated": "message_metadata.updated",
    "pin_added": "pin.added",
    "pin_removed": "pin.removed",
    "reaction_added": "reaction.added",
    "reaction_removed": "reaction.removed",
    "shared_channel_invite_accepted": "shared_channel_invite.accepted",
    "shared_channel_invite_approved": "shared_channel_invite.approved",
    "shared_channel_invite_declined": "shared_channel_invite.declined",
    "shared_channel_invite_received": "shared_channel_invite.received",
    "shared_channel_invite_requested": "shared_channel_invite.requested",
    "star_added": "star.added",
    "star_removed": "star.removed",
    "subteam_created": "subteam.created",
    "subteam_members_changed": "subteam_members.changed",
    "subteam_self_added": "subteam_self.added",
    "subteam_self_removed": "subteam_self.removed",
    "subteam_updated": "subteam.updated",
    "team_access_granted": "team_access.granted",
    "team_access_revoked": "team_access.revoked",
    "team_domain_change": "team_domain.changed",
    "team_join": "team.joined",
    "team_rename": "team.renamed",
    "tokens_revoked": "tokens.revoked",
    "user_change": "user.changed",
    "user_huddle_changed": "user_huddle.changed",
    "user_profile_changed": "user_profile.changed",
    "user_status_changed": "user_status.changed",
    "workflow_deleted": "workflow.deleted",
    "workflow_published": "workflow.published",
    "workflow_step_deleted": "workflow_step.deleted",
    "workflow_step_execute": "workflow_step.executed",
    "workflow_unpublished": "workflow.unpublished",
    # interactivity: https://docs.slack.dev/reference/interaction-payloads
    "block_actions": "block_actions.received",
    "block_suggestion": "block_suggestion.requested",
    "dialog_cancellation": "dialog.cancelled",
    "dialog_submission": "dialog.submitted",
    "dialog_suggestion": "dialog_suggestion.requested",
    "interactive_message": "interactive_message.received",
    "message_action": "message_action.triggered",
    "shortcut": "shortcut.triggered",
    "view_closed": "view.closed",
    "view_submission": "view.submitted",
    "workflow_step_edit": "workflow_step.edited",
    # a form of its own: https://docs.slack.dev/interactivity/implementing-slash-commands
    "slash_command": "command.invoked",
}

POSTED = "message.posted"

MESSAGES = {
    "bot_message": POSTED,
    "file_share": POSTED,
    "me_message": POSTED,
    "thread_broadcast": POSTED,
    "message_changed": "message.changed",
    "message_deleted": "message.deleted",
    "message_replied": "message.replied",
}
_SUBTYPE = re.compile(r"[a-z][a-z_]{0,60}")


def transform(delivery: Delivery) -> Event | list[Event] | None:
    name = _message(delivery) if delivery.type == "message" else NAMES.get(delivery.type, delivery.type)
    return Event(name=f"{delivery.prefix}/{name}", data=delivery.payload, v=VERSION)


def _message(delivery: Delivery) -> str:
    event = delivery.payload.get("event")
    subtype = event.get("subtype") if isinstance(event, dict) else None
    if not isinstance(subtype, str):
        return POSTED
    return MESSAGES.get(subtype) or (f"message.{subtype}" if _SUBTYPE.fullmatch(subtype) else POSTED)
