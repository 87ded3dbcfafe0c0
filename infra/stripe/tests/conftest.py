from collections.abc import AsyncGenerator, Generator
from signal import SIGKILL, SIGTERM

import httpx
import pytest
import stripe
from stripe_emulator.testing import NO_TLS, Emulator, Receiver, client_of


@pytest.fixture(scope="session")
def shared_receiver() -> Generator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def shared_emulator(
    tmp_path_factory: pytest.TempPathFactory, shared_receiver: Receiver
) -> Generator[Emulator]:
    emulator = Emulator(tmp_path_factory.mktemp("stripe"), shared_receiver.url)
    emulator.start()
    yield emulator
    assert emulator.end(SIGTERM) == 0


@pytest.fixture
def receiver(shared_receiver: Receiver) -> Generator[Receiver]:
    yield shared_receiver
    shared_receiver.clear()


@pytest.fixture
def emulator(shared_emulator: Emulator, receiver: Receiver) -> Generator[Emulator]:
    """The emulator of this pytest worker, empty again after each test."""
    yield shared_emulator
    shared_emulator.control("POST", "reset")


@pytest.fixture
def own_emulator(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Generator[Emulator]:
    """For tests that kill it."""
    emulator = Emulator(tmp_path_factory.mktemp("stripe"), receiver.url)
    emulator.start()
    yield emulator
    emulator.end(SIGKILL)


@pytest.fixture
async def sdk() -> AsyncGenerator[stripe.HTTPXClient]:
    client = stripe.HTTPXClient(timeout=10)
    yield client
    await client.close_async()


@pytest.fixture
def client(emulator: Emulator, sdk: stripe.HTTPXClient) -> stripe.StripeClient:
    return client_of(emulator, sdk)


@pytest.fixture
def own_client(own_emulator: Emulator, sdk: stripe.HTTPXClient) -> stripe.StripeClient:
    return client_of(own_emulator, sdk)


@pytest.fixture
async def http(emulator: Emulator) -> AsyncGenerator[httpx.AsyncClient]:
    """Plain HTTP without a key, as a browser or curl would speak."""
    async with httpx.AsyncClient(base_url=emulator.url, verify=NO_TLS) as client:
        yield client
