"""Price tiers: what the seats of which sections cost. A section that no tier names is free."""

from collections.abc import Sequence
from typing import Annotated

from libs.ids import new_id
from libs.web.problems import InvalidRequest
from msgspec import Meta, Struct

from catalog.currencies import CURRENCIES
from catalog.models import PriceTier, TierKind


class NewTier(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """`amountMinor` is in the currency's minor unit: cents of a euro, whole yen."""

    name: Annotated[str, Meta(min_length=1, max_length=200, examples=["Stalls"])]
    amount_minor: Annotated[int, Meta(ge=0, le=99_999_999, examples=[4500])]
    currency: Annotated[
        str,
        Meta(
            min_length=3,
            max_length=3,
            description="ISO 4217, in either case",
            examples=["eur"],
            extra_json_schema={"enum": sorted(CURRENCIES)},
        ),
    ]
    sections: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=100, examples=["A"])]],
        Meta(min_length=1, max_length=1000),
    ]
    tier: TierKind = TierKind.STANDARD


def checked_tiers(tiers: Sequence[NewTier], *, known: Sequence[PriceTier] = ()) -> list[PriceTier]:
    """The tiers with their ids; one named like a known tier is that tier with another price.

    Raises `InvalidRequest` for an unknown currency, two currencies, or a section named twice.
    """
    ids = {tier.name: tier.id for tier in known}
    priced: set[str] = set()
    checked: list[PriceTier] = []
    for index, tier in enumerate(tiers):
        currency = tier.currency.lower()
        if currency not in CURRENCIES:
            raise InvalidRequest.at(f"/tiers/{index}/currency", "no ISO 4217 code of a currency")
        if checked and currency != checked[0].currency:
            raise InvalidRequest.at(f"/tiers/{index}/currency", "all tiers of an event share one currency")
        for position, section in enumerate(tier.sections):
            if section in priced:
                raise InvalidRequest.at(
                    f"/tiers/{index}/sections/{position}", "another tier has priced this section"
                )
            priced.add(section)
        checked.append(
            PriceTier(
                id=ids.pop(tier.name, None) or new_id(),
                name=tier.name,
                tier=tier.tier,
                amount_minor=tier.amount_minor,
                currency=currency,
                sections=tier.sections,
            )
        )
    return checked
