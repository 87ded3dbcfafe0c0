"""Auth listens to nobody."""

from libs.messaging.subscriptions import Handlers

HANDLERS: Handlers = {}
