"""How busy a pool of database connections is."""

from libs.postgres import Pool
from libs.telemetry.metrics import POOL_USED, POOL_WAITING
from libs.telemetry.readings import Look, Values


def pool_readings(pool: Pool) -> Look:
    async def look() -> Values:
        stats = pool.get_stats()
        used = stats.get("pool_size", 0) - stats.get("pool_available", 0)
        return {(POOL_USED, ()): used, (POOL_WAITING, ()): stats.get("requests_waiting", 0)}

    return look
