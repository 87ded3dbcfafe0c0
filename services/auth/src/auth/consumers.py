"""Auth listens to nobody."""

from libs.messaging.deliveries import Handlers

HANDLERS: Handlers = {}
