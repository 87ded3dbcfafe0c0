"""Types that the services' answers share, with what the OpenAPI documents say of them."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

Time = Annotated[datetime, Meta(tz=True, description="UTC", examples=["2030-05-01T19:00:00Z"])]
Currency = Annotated[str, Meta(description="ISO 4217, lower case", examples=["eur"])]
AmountMinor = Annotated[int, Meta(ge=0, description="In the currency's minor unit", examples=[4500])]
Section = Annotated[str, Meta(examples=["A"])]
Row = Annotated[str, Meta(examples=["12"])]
SeatNumber = Annotated[int, Meta(examples=[7])]
EmailAddress = Annotated[str, Meta(examples=["ada@example.com"])]
