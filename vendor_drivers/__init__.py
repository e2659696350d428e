"""The vendor drivers that ship with mdevfs; they import `mdevfs.vendor` and nothing deeper."""
