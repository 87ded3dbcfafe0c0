"""The HTTP edge that all services share: application, problems, access, paging, idempotency."""
