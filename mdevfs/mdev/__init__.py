"""The mdev core (drivers/vfio/mdev/): parents, types, mdevs; create and remove."""
