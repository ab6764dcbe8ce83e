"""Whether intervals cover, and whether a campaign without signal says so."""
