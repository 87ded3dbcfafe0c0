"""Expected refusals."""

from libs.web.problems import NotFound, Problem


class UnknownReference(NotFound):
    """The body names an organizer or a venue that does not exist; `errors` says where."""

    @classmethod
    def at(cls, pointer: str, noun: str) -> "UnknownReference":
        detail = f"There is no such {noun}."
        return cls(detail, errors=[{"pointer": pointer, "detail": detail}])


class SlugTaken(Problem):
    """Another organizer has this slug."""

    code = "slug_taken"
    status = 409
    cure = "Take another slug."


class SeatExists(Problem):
    """A seat with this section, row and number is in the venue, or twice in the call; `seats` names some."""

    code = "seat_exists"
    status = 409
    cure = "Leave out the seats that `seats` names; nothing was added."


class UnknownSections(Problem):
    """Price tiers of an event on sale name sections in which the venue has no seat; `sections` names them."""

    code = "unknown_sections"
    status = 409
    cure = "Add seats to these sections first, or take them off the tiers."


class EventIsPublished(Problem):
    """What was asked for is possible for drafts only: the venue, the currency and the seats are settled."""

    code = "event_published"
    status = 409
    cure = "Make a new event, or cancel this one."


class EventIsCancelled(Problem):
    """A cancelled event stays as it is."""

    code = "event_cancelled"
    status = 409
    cure = "Make a new event."
