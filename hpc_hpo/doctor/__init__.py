"""Whether a site is as its file and this package take it to be, before a first study."""
