"""The driver model as sysfs shows it: devices, buses, classes, drivers, IOMMU groups."""
