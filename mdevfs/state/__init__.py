"""Device state: VMState descriptions, the streams that carry it, the migration state machine of VFIO."""
