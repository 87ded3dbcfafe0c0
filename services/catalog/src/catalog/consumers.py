"""What catalog learns from messages: whose access tokens are good no more."""

from contracts.messages import UserDisabled, UserTokensRevoked
from libs.messaging.subscriptions import Handlers
from libs.postgres import Conn

from catalog.queries import tokens


async def on_user_disabled(conn: Conn, message: UserDisabled) -> None:
    await tokens.revoke_tokens(conn, message.user_id, not_before=message.disabled_at)


async def on_user_tokens_revoked(conn: Conn, message: UserTokensRevoked) -> None:
    await tokens.revoke_tokens(conn, message.user_id, not_before=message.not_before)


HANDLERS: Handlers = {UserDisabled: on_user_disabled, UserTokensRevoked: on_user_tokens_revoked}
