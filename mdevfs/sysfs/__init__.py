"""The tree itself: directories, attributes, links, open files. It knows neither FUSE nor mdevs."""
