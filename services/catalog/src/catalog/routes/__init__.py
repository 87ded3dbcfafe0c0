"""The HTTP surface, by noun."""

from litestar import Router

from catalog.routes.events import EVENT_ROUTES
from catalog.routes.venues import ORGANIZER_ROUTES, VENUE_ROUTES

ROUTES = [
    Router("/", route_handlers=ORGANIZER_ROUTES, tags=["organizers"]),
    Router("/", route_handlers=VENUE_ROUTES, tags=["venues"]),
    Router("/", route_handlers=EVENT_ROUTES, tags=["events"]),
]
