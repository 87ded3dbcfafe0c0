"""Calls of Stripe in the machine's hands: each is answered, lost, refused or kept waiting as it says."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from enum import StrEnum
from typing import Any

import httpx
from stripe_emulator.faults import Fault


class Fate(StrEnum):
    GO = "go"  # done and answered
    LOST_ONCE = "lost once"  # done, the answer is lost; the SDK's repetition is answered
    LOST = "lost"  # done, and the answers to the repetitions are lost too
    AWAY = "away"  # Stripe is not reached, nor by the repetitions
    ERROR = "error"  # done, and answered with a 500 that Stripe repeats for the key
    REFUSED = "refused"  # refused for good before anything is done
    DIES = "dies"  # done; whoever asked dies before the answer
    DIES_BEFORE = "dies before"  # whoever asked dies on the way
    HOLD = "hold"  # on its way until the machine says what becomes of it


class Flight:
    """A piece of work that may wait for Stripe."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.moved = asyncio.Event()
        self.call: asyncio.Future[Fate] | None = None
        self.task: asyncio.Task[None]

    @property
    def is_waiting(self) -> bool:
        return self.call is not None and not self.call.done()


_current: ContextVar[Flight | None] = ContextVar("flight", default=None)


class Flights(httpx.AsyncBaseTransport):
    """The way to Stripe. Work goes on until it is done or waits for an answer, one piece after the other."""

    def __init__(
        self,
        stripe: httpx.AsyncBaseTransport,
        *,
        put_fault: Callable[[Fault], None],
        is_resting: Callable[[], bool],
    ) -> None:
        """`is_resting`: no connection of a pool is in use."""
        self._stripe = stripe
        self._put_fault = put_fault
        self._is_resting = is_resting
        self._flights: list[Flight] = []
        self._held: list[str] = []

    @property
    def waiting(self) -> list[Flight]:
        return [flight for flight in self._flights if flight.is_waiting]

    async def start(self, work: Coroutine[Any, Any, None], fate: Fate = Fate.GO) -> None:
        flight = Flight(fate)
        context = copy_context()
        context.run(_current.set, flight)
        flight.task = asyncio.get_running_loop().create_task(work, context=context)
        flight.task.add_done_callback(lambda _: flight.moved.set())
        self._flights.append(flight)
        await self._until_quiet()

    async def decide(self, flight: Flight, fate: Fate) -> None:
        assert flight.call is not None
        flight.call.set_result(fate)
        await self._until_quiet()

    async def clear(self) -> None:
        for flight in self._flights:
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in self._flights), return_exceptions=True)
        self._flights.clear()
        self._held.clear()

    async def _until_quiet(self) -> None:
        for flight in list(self._flights):
            while not flight.task.done() and not flight.is_waiting:
                try:
                    async with asyncio.timeout(0.05):
                        await flight.moved.wait()
                    flight.moved.clear()
                except TimeoutError:
                    if await self._rests():  # it waits for what another flight has asked
                        break
        assert not self._held, f"a connection was held during {self._held}"
        done = [flight for flight in self._flights if flight.task.done()]
        self._flights = [flight for flight in self._flights if not flight.task.done()]
        for flight in done:
            if not flight.task.cancelled():
                flight.task.result()

    async def _rests(self) -> bool:
        for _ in range(20):
            if not self._is_resting():
                return False
            await asyncio.sleep(0)
        return True

    async def _is_held(self) -> bool:
        """A connection is kept by who asks; one that another is using comes back soon."""
        for _ in range(100):
            if self._is_resting():
                return False
            await asyncio.sleep(0.005)
        return True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if await self._is_held():
            self._held.append(f"{request.method} {request.url.path}")
        flight = _current.get()
        fate = Fate.GO
        if flight is not None:
            fate = flight.fate
            if fate is Fate.HOLD:
                flight.call = asyncio.get_running_loop().create_future()
                flight.moved.set()
                fate = await flight.call
                flight.moved.clear()
            flight.fate = fate if fate in (Fate.LOST, Fate.AWAY) else Fate.GO
        match fate:
            case Fate.AWAY:
                raise httpx.ConnectError("not reached", request=request)
            case Fate.DIES_BEFORE:
                raise asyncio.CancelledError
            case Fate.ERROR:
                self._put_fault(Fault(status=500, after=True, count=1))
            case Fate.REFUSED:
                self._put_fault(Fault(status=400, count=1))
            case _:
                pass
        answer = await self._stripe.handle_async_request(request)
        if fate in (Fate.LOST, Fate.LOST_ONCE):
            raise httpx.ReadError("the answer is lost", request=request)
        if fate is Fate.DIES:
            raise asyncio.CancelledError
        return answer
