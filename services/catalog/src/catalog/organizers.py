"""Organizers: who puts events on."""

from uuid import UUID

from libs.postgres import Conn, Pool, transaction

from catalog.errors import SlugTaken, UnknownReference
from catalog.models import Organizer
from catalog.queries import venues as queries


async def create_organizer(
    pool: Pool, *, organizer_id: UUID, name: str, email: str, slug: str, logo_url: str | None
) -> Organizer:
    """The one that is there when it was made before. Raises `SlugTaken`."""
    async with transaction(pool) as conn:
        organizer = await queries.insert_organizer(
            conn, organizer_id=organizer_id, name=name, email=email, slug=slug, logo_url=logo_url
        ) or await queries.find_organizer(conn, organizer_id)
    if organizer is None:
        raise SlugTaken(f"Another organizer has the slug {slug}.")
    return organizer


async def require_organizer(conn: Conn, organizer_id: UUID | None) -> None:
    """Raises `UnknownReference`. Organizers are never deleted: one that is seen here stays."""
    if organizer_id is not None and await queries.find_organizer(conn, organizer_id) is None:
        raise UnknownReference.at("/organizerId", "organizer")
