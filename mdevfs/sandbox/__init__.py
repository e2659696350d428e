"""A command on an emulated host: private namespaces, sysfs's magic, uevents over netlink."""
