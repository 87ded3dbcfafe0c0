"""What catalog learns from messages: whose access tokens are good no more."""

from contracts.messages import UserDisabled, UserTokensRevoked
from libs.messaging.deliveries import Handlers
from libs.revocations import on_user_disabled, on_user_tokens_revoked

HANDLERS: Handlers = {UserDisabled: on_user_disabled, UserTokensRevoked: on_user_tokens_revoked}
