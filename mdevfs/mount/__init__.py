"""pyfuse3: a sysfs tree served to the kernel, and the life of the mount."""
