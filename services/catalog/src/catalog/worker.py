"""The background process: `python -m catalog.worker` consumes and sends the outbox."""

import uvloop
from libs.messaging.worker import run_worker

from catalog.consumers import HANDLERS
from catalog.settings import settings_of

if __name__ == "__main__":
    uvloop.run(run_worker(settings_of("worker"), service="catalog", handlers=HANDLERS, sweeps={}))
