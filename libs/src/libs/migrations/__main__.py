import os
import sys
from pathlib import Path

from libs.migrations import migrate, services_from_environment

folders = [Path(argument) for argument in sys.argv[1:]]
if not folders:
    sys.exit("usage: python -m libs.migrations services/auth/migrations ...")
try:
    names = migrate(os.environ["ADMIN_DATABASE_URL"], services_from_environment(folders))
except KeyError as missing:
    sys.exit(f"migrations: {missing} is not set")
print(f"migrations: {len(names)} applied{': ' + ', '.join(names) if names else ''}")
