"""Throws a projection away and builds it again from its topics, while the service runs.

python -m catalog.rebuild revocations    revoked access tokens
"""

import sys

from libs.messaging.rebuilds import main
from libs.revocations import revocations_projection

PROJECTIONS = (revocations_projection("catalog"),)

if __name__ == "__main__":
    sys.exit(main("catalog", PROJECTIONS))
