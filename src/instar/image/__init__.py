"""Guest images: fetched with Debian's own verification, built reproducibly, kept by content."""
