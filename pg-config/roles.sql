-- A role for `walden backup` with the rights it needs and no others. As a superuser, on the primary, in the database
-- postgres:   psql -X -v ON_ERROR_STOP=1 -d postgres -f roles.sql
-- Then give it a password (\password walden_backup) and put that into ~/.pgpass of the user who runs the backup,
-- or let it in by peer or certificate: see pg_hba.conf.sample.

-- REPLICATION is what BASE_BACKUP asks for. It can read every byte of the cluster, so guard it as a superuser's;
-- it cannot change any.
CREATE ROLE walden_backup WITH LOGIN REPLICATION
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS CONNECTION LIMIT 4;

-- On the server's own host walden reads the files itself (--mode local): it tells the server when it begins and ends,
-- in this database, and asks where the data directory and the configuration files are.
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO walden_backup;
GRANT pg_read_all_settings TO walden_backup;

-- pg_stat_archiver, pg_current_wal_lsn() and the catalogs are open to all; connecting is, too, unless somebody took it
-- away. With postgres alone backups work; the others let walden save what their tables are called, which WAL does not
-- say: no right on any table is needed, and none is given. For each database from which CONNECT was revoked:
--   GRANT CONNECT ON DATABASE shop TO walden_backup;
GRANT CONNECT ON DATABASE postgres TO walden_backup;
