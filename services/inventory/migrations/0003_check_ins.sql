-- The request that admitted a ticket: repeated after a crash, it gets its answer again.
ALTER TABLE tickets ADD COLUMN check_in_id uuid;
GRANT UPDATE (check_in_id) ON tickets TO inventory_app;
